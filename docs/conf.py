"""The documentation as a site, as Ape's own plugins have it: ``make docs``."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402

extensions = ["sphinx_ape"]
html_title = "ape-silverback"
myst_heading_anchors = 3
plausible_enabled = False  # nothing is counted


def setup(app: Sphinx) -> None:
    """Check links, which `sphinx_ape` takes for external ones, and write the pages that aren't kept."""
    app.config.myst_all_links_external = False
    for name, page in generate.UNKEPT.items():
        (HERE / name).write_text(page(), encoding="utf8")
