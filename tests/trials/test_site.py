"""The site of the documentation: it builds without a warning, and its links lead to pages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.trial


def test_it_builds_without_a_warning_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "docs", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    broken = []
    for page in [
        tmp_path / "index.html",
        *(tmp_path / "userguides").glob("*.html"),
        *(tmp_path / "commands").glob("*"),
    ]:
        article = re.search(r"<article.*?</article>", page.read_text(), re.DOTALL)
        links = re.findall(r'href="([^"#:]+)(?:#[^"]*)?"', article[0] if article else "")
        broken += [f"{page.name}: {link}" for link in links if not (page.parent / unquote(link)).exists()]
    assert not broken
