"""The `silverback:` section: where it may stand, how it is checked, and that both readers agree on it."""

from __future__ import annotations

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ape_silverback.config.models import BotConfig, Section
from ape_silverback.config.reader import SectionReading, read_section
from ape_silverback.exceptions import ConfigurationError, SilverbackError
from tests.conftest import ROOT, Ape

pytestmark = pytest.mark.usefixtures("home")
MANAGER = "0xdAC17F958D2ee523a2206206994597C13D831ec7"


def read(project: Path, text: str, name: str = "ape-config.yaml") -> SectionReading:
    (project / name).write_text(text)
    return read_section(project)


def error_of(project: Path, text: str, name: str = "ape-config.yaml") -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(project, text, name)
    return str(caught.value)


# What is said about what is wrong


@pytest.mark.parametrize(
    ("text", "error"),
    [
        # Keys
        ("silverback:\n  profil: x", "ape-config.yaml:2: silverback.profil: unknown key; did you mean 'profile'?"),
        (
            "silverback:\n  bots:\n    a:\n      netwrk: x",
            "ape-config.yaml:4: silverback.bots.a.netwrk: unknown key; did you mean 'network'?",
        ),
        (
            "silverback:\n  targets:\n    p:\n      bots:\n        a:\n          imagge: x",
            "ape-config.yaml:6: silverback.targets.p.bots.a.imagge: unknown key; did you mean 'image'?",
        ),
        (
            "silverback:\n  stream:\n    minimum_time_lef: x",
            "ape-config.yaml:3: silverback.stream.minimum_time_lef: unknown key; did you mean 'minimum_time_left'?",
        ),
        (
            "silverback:\n  cluster-access: true\n  cluster_access: true",
            "ape-config.yaml:3: silverback.cluster_access: given twice, with '-' and with '_'",
        ),
        (
            "silverback:\n  tag: a\n  account: x\n  tag: b",
            "ape-config.yaml:4: duplicate key 'tag', first in line 2",
        ),
        (
            "silverback:\n  tag: a\nname: x\nsilverback:\n  tag: b",
            "ape-config.yaml:4: duplicate key 'silverback', first in line 1",
        ),
        ("\n- a", "ape-config.yaml:2: expected keys and values"),
        ("text", "ape-config.yaml:1: expected keys and values"),
        # Types
        ("silverback:\n  tag: 1.4", "ape-config.yaml:2: silverback.tag: expected text, got 1.4; put it in quotes"),
        ("silverback:\n  account: [a]", "ape-config.yaml:2: silverback.account: expected text, got a list"),
        ("silverback:\n  environment: rpc", "ape-config.yaml:2: silverback.environment: expected a list, got 'rpc'"),
        ("silverback:\n  bots: [a]", "ape-config.yaml:2: silverback.bots: expected keys and values, got a list"),
        ("silverback:\n  bots:\n    a: x", "ape-config.yaml:3: silverback.bots.a: expected keys and values, got 'x'"),
        ("silverback:\n  cluster-access: perhaps", "silverback.cluster_access: expected true or false, got 'perhaps'"),
        ("silverback:\n  stream:", "ape-config.yaml:2: silverback.stream: expected keys and values, got nothing"),
        # Values
        (
            "silverback:\n  cluster: a/b/c",
            "ape-config.yaml:2: silverback.cluster: expected WORKSPACE/NAME, got 'a/b/c'",
        ),
        (
            "silverback:\n  environment: ['no spaces']",
            "expected a name (letters, digits, '-', '_', '.'), got 'no spaces'",
        ),
        ("silverback:\n  bots:\n    'a/b': {}", "ape-config.yaml:3: silverback.bots.a/b: expected a name"),
        (
            "silverback:\n  variables:\n    rpc: [KEY=secret-value]",
            "ape-config.yaml:3: silverback.variables.rpc: 'KEY' isn't a valid variable name; "
            "a value never belongs in this file",
        ),
        (
            "silverback:\n  variables:\n    rpc:\n      KEY: secret-value",
            "expected a list of names; values never belong in this file",
        ),
        (
            "silverback:\n  tag: 2026-01-02",
            "ape-config.yaml:2: silverback.tag: expected text, got the date 2026-01-02; put it in quotes",
        ),
        (
            "silverback:\n  environment: [2026-01-02]",
            "expected a name (letters, digits, '-', '_', '.'), got the date 2026-01-02; put it in quotes",
        ),
        *(
            (
                f"silverback:\n  stream:\n    minimum-time-left: {span}",
                f"ape-config.yaml:3: silverback.stream.minimum_time_left: expected a time span such as '3 days', '12h' "
                f"or seconds, got {shown}: that isn't between 0 and 100 years",
            )
            for span, shown in (
                ("9999999999999999999 weeks", "'9999999999999999999 weeks'"),
                ("'99999999999999999999'", "'99999999999999999999'"),
                ("99999999999999999999", "99999999999999999999"),
                ("P99999999999D", "'P99999999999D'"),
                (".inf", "inf"),
                ("-1", "-1"),
                ("200 weeks 99000 days", "'200 weeks 99000 days'"),
            )
        ),
        (
            "silverback:\n  stream:\n    minimum-time-left: soon",
            "ape-config.yaml:3: silverback.stream.minimum_time_left: expected a time span such as '3 days'",
        ),
        (
            "silverback:\n  stream:\n    managers:\n      1: '0x12'",
            "ape-config.yaml:4: silverback.stream.managers.1: not an address (0x and 40 hexadecimal digits)",
        ),
        (
            "silverback:\n  stream:\n    managers:\n      1: 0xdAC17F958D2ee523a2206206994597C13D831ec7",
            "an address has to be quoted",
        ),
        (
            f"silverback:\n  stream:\n    managers:\n      1: '{MANAGER[:-1]}8'",
            "wrong checksum (EIP-55) in address 0xdAC17F958D2ee523a2206206994597C13D831ec8",
        ),
        (
            f"silverback:\n  stream:\n    managers:\n      mainnet: '{MANAGER}'",
            "ape-config.yaml:4: silverback.stream.managers.mainnet: expected a whole number (a chain id)",
        ),
        # The section itself
        ("silverback:", "ape-config.yaml:1: silverback: is empty; add keys or remove it"),
        ("name: x\nsilverback: yes please", "ape-config.yaml:2: silverback: is 'yes please', not keys and values"),
        ("silverback: [a]", "ape-config.yaml:1: silverback: is a list, not keys and values"),
        # The file
        ("silverback:\n  tag: 'x\n", "ape-config.yaml:3: not YAML"),
        ("silverback:\n\ttag: x", "ape-config.yaml:2: not YAML"),
        ("silverback: *nothing", "not YAML"),
        ("silverback: !!python/object/apply:os.system [ls]", "not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_key(project: Path, text: str, error: str) -> None:
    said = error_of(project, text)
    assert error in said
    assert "secret-value" not in said


def test_all_that_is_wrong_is_said_at_once(project: Path) -> None:
    said = error_of(project, "silverback:\n  profil: x\n  tag: 1\n  bots:\n    a: {acount: x}")
    assert [line.partition(": ")[0] for line in said.splitlines()] == [f"ape-config.yaml:{n}" for n in (2, 5, 3)]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        (
            "pyproject.toml",
            "[tool.ape.silverback]\ntag = 'x'\n[tool.ape.silverback.bots.a]\nnetwrk = 'x'",
            "pyproject.toml:4: silverback.bots.a.netwrk: unknown key",
        ),
        ("pyproject.toml", "[tool.ape.silverback]\ntag = ", "pyproject.toml:2: not TOML"),
        (
            "ape-config.json",
            '{\n  "silverback": {\n    "tagg": "x"\n  }\n}',
            "ape-config.json:3: silverback.tagg: unknown key",
        ),
        ("ape-config.json", '{\n  "silverback": {,}\n}', "ape-config.json:2: not JSON"),
        ("ape-config.json", "[]", "ape-config.json:1: expected keys and values"),
        ("ape-config.yml", "silverback: 5", "ape-config.yml:1: silverback: is 5"),
    ],
)
def test_other_files_name_their_lines_too(project: Path, name: str, text: str, error: str) -> None:
    assert error in error_of(project, text, name)


def test_a_file_that_is_no_text_is_named(project: Path) -> None:
    (project / "ape-config.yaml").write_bytes(b"name: x\nsilverback:\n  tag: \xff\n")
    with pytest.raises(ConfigurationError, match=r"ape-config\.yaml:3: not UTF-8 text"):
        read_section(project)


def test_a_mistake_in_the_global_file_names_that_file(project: Path, home: Path) -> None:
    (home / ".ape").mkdir()
    (home / ".ape" / "ape-config.yaml").write_text("silverback:\n  profil: x\n")
    with pytest.raises(ConfigurationError, match=re.escape(f"{home}/.ape/ape-config.yaml:2: silverback.profil")):
        read_section(project)


@pytest.mark.parametrize(
    "text", ["silverback:", "silverback: text", "silverback:\n  profil: x", "silverback: [\n", "- a"]
)
def test_through_ape_it_is_one_clear_error_and_no_traceback(ape: Ape, project: Path, text: str) -> None:
    (project / "ape-config.yaml").write_text(text)
    result = ape("silverback", "cluster", "status")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ape-config.yaml:")
    assert "Traceback" not in result.stdout + result.stderr
    assert len(result.stderr.splitlines()) == 1


# The environment


def test_the_environment_wins_over_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APE_SILVERBACK_PROFILE", "ci")
    monkeypatch.setenv("APE_SILVERBACK_STREAM__REQUIRE", "true")
    monkeypatch.setenv("APE_SILVERBACK_ENVIRONMENT", "rpc, db")
    monkeypatch.setenv("APE_SILVERBACK_BOTS", '{"a": {"cluster-access": true}}')
    (project / "bots").mkdir()
    (project / "bots" / "a.py").touch()
    reading = read(project, "silverback:\n  profile: local\n  tag: v1\n  stream: {minimum-time-left: 1h}")
    section = reading.section
    assert (section.profile, section.tag, section.environment) == ("ci", "v1", ("rpc", "db"))
    assert section.stream.require
    assert section.stream.minimum_time_left == timedelta(hours=1)
    assert section.bots == {"a": BotConfig(cluster_access=True)}
    assert reading.declared == ()
    assert reading.place_of("profile") == "environment variable APE_SILVERBACK_PROFILE"
    assert reading.place_of("tag") == "ape-config.yaml:3"


def test_the_environment_is_enough_without_any_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APE_SILVERBACK_PROFILE", "ci")
    assert read_section(project).section.profile == "ci"


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        ("APE_SILVERBACK_PROFIL", "x", "APE_SILVERBACK_PROFIL: unknown key 'profil'; did you mean 'profile'?"),
        ("APE_SILVERBACK_BOTS", "[1", "environment variable APE_SILVERBACK_BOTS: not JSON"),
        ("APE_SILVERBACK_CLUSTER_ACCESS", "perhaps", "environment variable APE_SILVERBACK_CLUSTER_ACCESS: "),
        ("APE_SILVERBACK_STREAM__REQIRE", "x", "environment variable APE_SILVERBACK_STREAM__REQIRE: "),
        ("APE_SILVERBACK_STREAM__", "x", "environment variable APE_SILVERBACK_STREAM__: "),
        ("APE_SILVERBACK_TAG__X", "x", "environment variable APE_SILVERBACK_TAG__X: "),
    ],
)
def test_a_wrong_variable_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, error: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert error in error_of(project, "silverback:\n  tag: v1")


def test_somebody_elses_variable_stops_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APE_SILVERBACK_VERSION", "0.8.0")
    reading = read(project, "silverback:\n  tag: v1")
    assert reading.section.tag == "v1"
    assert reading.warnings == (
        "environment variable APE_SILVERBACK_VERSION isn't used: the section has no key 'version'",
    )


NAMES = "silverback:\n  bots: {price-feed: {}, KeeperBot: {}, a.b: {}, x__y: {}}\n  variables: {main-rpc: [A]}\n"
TARGETS = "  targets: {my-prod: {bots: {price-feed: {tag: old}}}}\n"


@pytest.mark.parametrize(
    ("variable", "path"),
    [
        ("BOTS__PRICE_FEED__TAG", "bots.price-feed.tag"),
        ("BOTS__KEEPERBOT__TAG", "bots.KeeperBot.tag"),
        ("BOTS__A_B__TAG", "bots.a.b.tag"),
        ("BOTS__X__Y__TAG", "bots.x__y.tag"),
        ("TARGETS__MY_PROD__TAG", "targets.my-prod.tag"),
        ("TARGETS__MY_PROD__BOTS__PRICE_FEED__TAG", "targets.my-prod.bots.price-feed.tag"),
    ],
)
def test_a_variable_and_a_setting_reach_every_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, variable: str, path: str
) -> None:
    (project / "ape-config.yaml").write_text(NAMES + TARGETS)
    before = read_section(project).section
    with monkeypatch.context() as patch:
        patch.setenv(f"APE_SILVERBACK_{variable}", "new")
        by_variable = read_section(project).section
    by_setting = read_section(project, [f"{path}=new"]).section
    assert by_variable == by_setting != before
    assert list(by_setting.bots) == ["price-feed", "KeeperBot", "a.b", "x__y"]
    assert "'new'" in repr(by_setting)


def test_a_variable_that_means_two_names_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APE_SILVERBACK_BOTS__A_B__TAG", "x")
    assert error_of(project, "silverback:\n  bots: {a-b: {}, A_b: {}}") == (
        "environment variable APE_SILVERBACK_BOTS__A_B__TAG: means 'A_b' and 'a-b'; use --set bots.NAME.KEY=VALUE, "
        "or rename one"
    )


@pytest.mark.parametrize("settings", [["targets.prodution.tag=v2"], ["tag=v2"]])
def test_an_unknown_target_is_refused_before_a_setting_could_make_it(project: Path, settings: list[str]) -> None:
    (project / "ape-config.yaml").write_text("silverback:\n  targets: {production: {}}\n")
    with pytest.raises(SilverbackError, match="no target 'prodution' in the silverback section; did you mean 'prod"):
        read_section(project, settings, "prodution")


def test_a_variable_makes_no_target(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APE_SILVERBACK_TARGETS__PRODUTION__TAG", "v2")
    assert "no target 'prodution' in the silverback section; did you mean" in error_of(
        project, "silverback:\n  targets: {production: {}}\n"
    )


@pytest.mark.parametrize("name", ["cluster-access", "cluster_access"])
@pytest.mark.parametrize("other", ["cluster-access", "cluster_access"])
def test_the_spelling_of_a_key_doesnt_change_what_wins(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch, name: str, other: str
) -> None:
    (home / ".ape").mkdir()
    (home / ".ape" / "ape-config.yaml").write_text(f"silverback: {{{other}: true, bots: {{a: {{{other}: true}}}}}}\n")
    text = f"silverback: {{{name}: false, bots: {{a: {{{name}: false}}}}}}\n"
    section = read(project, text).section
    assert (section.cluster_access, section.bots["a"].cluster_access) == (False, False)
    section = read_section(project, [f"{other}=true", f"bots.a.{other}=true"]).section
    assert (section.cluster_access, section.bots["a"].cluster_access) == (True, True)
    monkeypatch.setenv("APE_SILVERBACK_CLUSTER_ACCESS", "true")
    monkeypatch.setenv("APE_SILVERBACK_BOTS__A__CLUSTER_ACCESS", "true")
    section = read_section(project).section
    assert (section.cluster_access, section.bots["a"].cluster_access) == (True, True)
    assert as_ape_reads_it(project, home / ".ape").cluster_access is True


def test_text_that_is_not_utf8_is_refused_by_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = os.fsdecode(b"caf\xe9")
    (project / "ape-config.yaml").write_text("silverback:\n  tag: $BROKEN\n")
    monkeypatch.setenv("BROKEN", broken)
    with pytest.raises(ConfigurationError, match=r"ape-config\.yaml: environment variable BROKEN, .* isn't UTF-8 text"):
        read_section(project)
    monkeypatch.delenv("BROKEN")
    with pytest.raises(ConfigurationError, match=r"option --set tag: silverback\.tag: isn't UTF-8 text"):
        read_section(project, [f"tag={broken}"])
    monkeypatch.setenv("APE_SILVERBACK_ACCOUNT", broken)
    with pytest.raises(ConfigurationError, match=r"APE_SILVERBACK_ACCOUNT: silverback\.account: isn't UTF-8 text"):
        read_section(project)


def test_a_byte_order_mark_is_no_part_of_a_file(project: Path) -> None:
    (project / "ape-config.yaml").write_bytes(b"\xef\xbb\xbfsilverback:\n  tag: x\n")
    assert read_section(project).section.tag == "x"


# Where it may stand, and what it may say


def test_it_may_be_left_out(project: Path) -> None:
    assert read_section(project).section == Section()
    for text in ("name: x", "", "# nothing yet\n", "null"):
        assert read(project, text).section == Section()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ape-config.yaml", "silverback:\n  tag: v1\n  stream:\n    minimum-time-left: 2 days"),
        ("ape-config.yml", "silverback:\n  tag: v1\n  stream:\n    minimum_time_left: 48h"),
        ("ape-config.json", '{"silverback":\t{"tag": "v1", "stream": {"minimum-time-left": 172800}}}'),
        ("pyproject.toml", "[tool.ape.silverback]\ntag = 'v1'\nstream = {minimum-time-left = 'P2D'}"),
        ("pyproject.toml", "[tool.ape.silverback]\ntag = 'v1'\n[tool.ape.silverback.stream]\nminimum_time_left = '2d'"),
    ],
)
def test_it_says_the_same_in_every_file(project: Path, name: str, text: str) -> None:
    section = read(project, text, name).section
    assert section.tag == "v1"
    assert section.stream.minimum_time_left == timedelta(days=2)


def test_a_pyproject_with_a_table_of_apes_replaces_the_other_file(project: Path) -> None:
    (project / "ape-config.yaml").write_text("silverback:\n  tag: yaml")
    assert read(project, "[tool.other]\nx = 1", "pyproject.toml").section.tag == "yaml"
    assert read(project, "[tool.ape]\nname = 'x'", "pyproject.toml").section.tag is None


def test_the_global_file_is_merged_underneath(project: Path, home: Path) -> None:
    (home / ".ape").mkdir()
    (home / ".ape" / "ape-config.yaml").write_text(
        "silverback:\n  account: me\n  tag: old\n  stream: {require: true}\n"
    )
    reading = read(project, "silverback:\n  tag: new\n  stream: {minimum-time-left: 1h}")
    assert (reading.section.account, reading.section.tag, reading.section.stream.require) == ("me", "new", True)
    assert reading.place_of("account") == f"{home}/.ape/ape-config.yaml:2"
    assert reading.place_of("tag") == "ape-config.yaml:2"


def test_the_global_file_may_spell_a_key_differently(project: Path, home: Path) -> None:
    (home / ".ape").mkdir()
    (home / ".ape" / "ape-config.yaml").write_text("silverback:\n  cluster-access: true\n")
    assert read(project, "silverback:\n  cluster_access: false").section.cluster_access is False


def test_variables_of_the_shell_are_expanded_and_unknown_ones_stay(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORGANISATION", "my-org")
    section = read(project, "silverback:\n  registry: ghcr.io/$ORGANISATION\n  tag: ${NOT_SET_HERE}").section
    assert (section.registry, section.tag) == ("ghcr.io/my-org", "${NOT_SET_HERE}")


def test_names_are_data_and_keep_their_spelling(project: Path) -> None:
    section = read(
        project, "silverback:\n  bots:\n    my-bot: {}\n    my_bot:\n  variables: {a-b: [X], a_b: [Y]}"
    ).section
    assert list(section.bots) == ["my-bot", "my_bot"]
    assert section.variables == {"a-b": ("X",), "a_b": ("Y",)}


@pytest.mark.parametrize("address", [MANAGER, MANAGER.lower(), "0x" + MANAGER[2:].upper()])
def test_an_address_comes_out_with_its_checksum(project: Path, address: str) -> None:
    text = f"silverback:\n  stream:\n    managers: {{1: '{address}'}}"
    assert read(project, text).section.stream.managers == {1: MANAGER}


def test_ape_shows_it_in_its_configuration(ape: Ape, project: Path) -> None:
    (project / "ape-config.yaml").write_text("silverback:\n  bots:\n    watcher: {account: deployer}\n")
    result = ape("--config")
    assert result.returncode == 0
    shown = yaml.safe_load(result.stdout)["silverback"]
    assert shown["bots"]["watcher"]["account"] == "deployer"


def test_ape_reads_it_for_scripts_too(ape: Ape, project: Path) -> None:
    (project / "scripts").mkdir()
    (project / "scripts" / "show.py").write_text(
        "from ape import project\n\n\ndef main():\n    print('tag is', project.config.silverback.tag)\n"
    )
    (project / "ape-config.yaml").write_text("silverback:\n  tag: from-file\n")
    assert "tag is from-file" in ape("run", "show").stdout
    assert "tag is from-environment" in ape("run", "show", APE_SILVERBACK_TAG="from-environment").stdout


def test_this_repository_is_an_example_that_holds() -> None:
    reading = read_section(ROOT)
    assert set(reading.section.bots) == {"blocks", "streams"}


# The documented example


def keys_of(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Return every key that may be written in a part; a name that the user chooses is a star."""
    found: set[tuple[str, ...]] = set()
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        found.add(path)
        models = [part for part in _parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        for part in models:
            named = str(field.annotation).startswith("dict")
            found |= keys_of(part, (*path, "*") if named else path)
    return found


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *(part for inside in get_args(annotation) for part in _parts(inside))]


def test_the_example_explains_every_key_there_is() -> None:
    example = ROOT / "docs" / "ape-config.example.yaml"
    text = example.read_text()
    data = yaml.safe_load(text)["silverback"]

    def is_there(value: Any, path: tuple[str, ...]) -> bool:
        if not path:
            return True
        if not isinstance(value, dict):
            return False
        if path[0] == "*":
            return any(is_there(below, path[1:]) for below in value.values())
        return any(is_there(below, path[1:]) for key, below in value.items() if key.replace("-", "_") == path[0])

    # Keys that may stand at several levels are in the example once: those of targets, and those of several networks.
    elsewhere = ("targets", "networks", "names")
    missing = sorted(
        ".".join(path)
        for path in keys_of(Section)
        if path[0] not in elsewhere and path[3:4] != ("*",) and not is_there(data, path)
    ) + [f"targets.*.{name}" for name in ("profile", "cluster", "bots") if not is_there(data, ("targets", "*", name))]
    assert not missing
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\s{2,}[a-z-]+:", line) and line.count("  ") == 1:
            assert "#" in line or lines[number - 1].lstrip().startswith("#"), f"line {number + 1} has no explanation"


def test_the_example_is_valid(project: Path) -> None:
    section = read(project, (ROOT / "docs" / "ape-config.example.yaml").read_text()).section
    assert section.bots
    assert section.targets
    assert section.stream.managers


# Ape's own reader and ours

words = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True).filter(
    lambda word: word not in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
)
texts = st.one_of(words, st.sampled_from(["$GIVEN", "${GIVEN}-x", "$MISSING", "", "a: b", "1.0", "#x", "'", '"', "é"]))
names = st.one_of(words, st.sampled_from(["a-b", "a_b", "1", "x.y"]))
bot_values = {
    "network": texts,
    "account": texts,
    "registry": texts,
    "tag": texts,
    "credential": texts,
    "environment": st.lists(names, max_size=2),
    "cluster-access": st.booleans(),
}
bot = st.fixed_dictionaries({}, optional={**bot_values, "image": texts, "module": texts})
deployment = {
    **bot_values,
    "profile": texts,
    "cluster": st.sampled_from(["a/b", "c"]),
    "variables": st.dictionaries(names, st.lists(st.sampled_from(["KEY", "url_2"]), max_size=2), max_size=2),
    "bots": st.dictionaries(names, bot, max_size=2),
}
stream = st.fixed_dictionaries(
    {},
    optional={
        "managers": st.dictionaries(st.sampled_from(["1", "8453"]), st.just(MANAGER), max_size=2),
        "minimum-time-left": st.sampled_from(["3 days", "2h", "P1D", 60]),
        "require": st.booleans(),
    },
)
sections = st.fixed_dictionaries(
    {},
    optional={
        **deployment,
        "stream": stream,
        "targets": st.dictionaries(
            names, st.fixed_dictionaries({}, optional={**deployment, "stream": stream}), max_size=2
        ),
    },
).filter(bool)


def respelled(value: Any, underscores: bool) -> Any:
    """Write the keys that have two spellings in the other one."""
    if not isinstance(value, dict):
        return value
    both = ("cluster-access", "minimum-time-left")
    return {
        key.replace("-", "_") if underscores and key in both else key: respelled(below, underscores)
        for key, below in value.items()
    }


def write(folder: Path, name: str, section: Any) -> None:
    for old in folder.glob("*.*"):
        old.unlink()
    content = {"name": "x", "silverback": section}
    if name == "pyproject.toml":
        import tomlkit

        (folder / name).write_text(tomlkit.dumps({"tool": {"ape": content}}), encoding="utf8")
    elif name.endswith(".json"):
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf8")
    else:
        (folder / name).write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf8")


def as_ape_reads_it(folder: Path, data_folder: Path) -> Section:
    from ape import Project
    from ape.utils.basemodel import ManagerAccessMixin

    manager = ManagerAccessMixin.config_manager
    manager.DATA_FOLDER = data_folder
    manager.__dict__.pop("global_config", None)
    found: Section = Project(folder).config.get_config("silverback")
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    section=sections,
    underneath=st.one_of(st.none(), sections),
    name=st.sampled_from(["ape-config.yaml", "ape-config.yml", "ape-config.json", "pyproject.toml"]),
    underscores=st.booleans(),
    environment=st.fixed_dictionaries(
        {}, optional={"APE_SILVERBACK_TAG": words, "APE_SILVERBACK_STREAM__REQUIRE": st.just("true")}
    ),
)
def test_both_readers_give_the_same_section(
    section: Any, underneath: Any, name: str, underscores: bool, environment: dict[str, str], tmp_path_factory: Any
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        folder, data_folder = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("data")
        patch.setenv("GIVEN", "given")
        patch.setenv("APE_DATA_FOLDER", str(data_folder))
        for variable, value in environment.items():
            patch.setenv(variable, value)
        write(folder, name, respelled(section, underscores))
        if underneath is not None:
            write(data_folder, "ape-config.yaml", underneath)
        ours = read_section(folder).section
        apes = as_ape_reads_it(folder, data_folder)
        assert {key: getattr(apes, key) for key in Section.model_fields} == dict(ours)
