"""Bots resolve from section, options and the Ape project; every value says where it came from; nothing is contacted."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ape_silverback.cluster.types import BotConfiguration, ClusterKind
from ape_silverback.config.reader import read_section
from ape_silverback.exceptions import ResolutionError
from ape_silverback.project.desired import DesiredBot, DesiredState, Overrides
from ape_silverback.project.discovery import discover_bots, split_project_image
from ape_silverback.project.resolver import resolve
from ape_silverback.server.runtimes.process import ProcessRuntime
from tests.conftest import Ape

pytestmark = pytest.mark.usefixtures("home", "_no_network")


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise AssertionError("something was contacted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return


def add_bots(project: Path, *names: str) -> None:
    (project / "bots").mkdir(exist_ok=True)
    for name in names:
        (project / "bots" / f"{name}.py").touch()


def resolved(
    project: Path,
    section: dict[str, Any] | None = None,
    kind: ClusterKind | None = "local",
    options: Overrides | None = None,
    names: tuple[str, ...] = (),
    target: str | None = None,
) -> DesiredState:
    (project / "ape-config.yaml").write_text(
        yaml.safe_dump({"silverback": section} if section else {}, sort_keys=False)
    )
    return resolve(
        read_section(project),
        project,
        kind=kind,
        names=names,
        target=target,
        options=options or Overrides(),
        environ={},
    )


def one(project: Path, section: dict[str, Any] | None = None, **more: Any) -> DesiredBot:
    [bot] = resolved(project, section, **more).bots
    return bot


def problems(project: Path, section: dict[str, Any] | None = None, **more: Any) -> str:
    with pytest.raises(ResolutionError) as caught:
        resolved(project, section, **more)
    return str(caught.value)


# Precedence

PLACES = ("option", "target's bot", "target", "bot", "section")
given_places = st.sets(st.sampled_from(PLACES))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(accounts=given_places, tags=given_places, networks=given_places, groups=given_places, registries=given_places)
def test_the_narrowest_place_wins_for_every_value(
    accounts: set[str],
    tags: set[str],
    networks: set[str],
    groups: set[str],
    registries: set[str],
    tmp_path_factory: Any,
) -> None:
    project = tmp_path_factory.mktemp("project")
    add_bots(project, "a")
    network_of = dict(zip(PLACES, ("sepolia", "mainnet", "holesky", "hoodi", "sepolia"), strict=True))

    def values(place: str) -> dict[str, Any]:
        number = PLACES.index(place)
        said: dict[str, Any] = {}
        said |= {"account": f"account-{number}"} if place in accounts else {}
        said |= {"tag": f"tag-{number}"} if place in tags else {}
        said |= {"network": f"ethereum:{network_of[place]}:provider{number}"} if place in networks else {}
        said |= {"environment": [f"group-{number}"]} if place in groups and place != "option" else {}
        said |= {"registry": f"registry-{number}.example/org"} if place in registries and place != "option" else {}
        return said

    section = {
        **values("section"),
        "bots": {"a": values("bot")},
        "targets": {"t": {**values("target"), "bots": {"a": values("target's bot")}}},
    }
    if not registries - {"option"}:
        section["registry"] = "registry-9.example/org"
    bot = one(project, section, kind="direct", options=Overrides(**values("option")), target="t")

    def winner(places: set[str], *, option: bool = True) -> int | None:
        return next(
            (PLACES.index(place) for place in PLACES if place in places and (option or place != "option")), None
        )

    account, tag, network = winner(accounts), winner(tags), winner(networks)
    group, registry = winner(groups, option=False), winner(registries, option=False)
    assert bot.configuration.account == (None if account is None else f"account-{account}")
    assert bot.configuration.environment == (() if group is None else (f"group-{group}",))
    shown_tag = "latest" if tag is None else f"tag-{tag}"
    assert bot.configuration.image.endswith(f"-a:{shown_tag}")
    assert bot.configuration.image.startswith(f"registry-{9 if registry is None else registry}.example/org/")
    if network is not None:
        assert (bot.configuration.network, bot.configuration.provider) == (
            network_of[PLACES[network]],
            f"provider{network}",
        )
    else:
        assert (bot.configuration.ecosystem, bot.configuration.network) == ("ethereum", "local")

    origins = ("option --", "targets.t.bots.a.", "targets.t.", "bots.a.", "")
    for key, origin, won in (
        ("account", bot.origins["account"], account),
        ("environment", bot.origins["environment"], group),
        ("network", bot.origins["network"], network),
    ):
        if won is not None:
            assert origin.startswith(f"{origins[won]}{key}"), origin
    for name in BotConfiguration.model_fields:
        assert bot.origins[name], f"no origin of {name}"


def test_an_origin_names_file_and_line(project: Path) -> None:
    add_bots(project, "a")
    bot = one(project, {"account": "me", "bots": {"a": {"network": "ethereum:sepolia"}}})
    assert bot.origins["account"] == "account (ape-config.yaml:2)"
    assert bot.origins["network"] == "bots.a.network (ape-config.yaml:5)"
    assert bot.origin == "silverback.bots.a"


def test_empty_text_takes_back_what_a_wider_place_gives(project: Path) -> None:
    add_bots(project, "a")
    section = {"account": "me", "credential": "ghcr", "environment": ["rpc"]}
    bot = one(project, {**section, "bots": {"a": {"account": "", "credential": "", "environment": []}}})
    assert (bot.configuration.account, bot.configuration.credential_name, bot.configuration.environment) == (
        None,
        None,
        (),
    )


# Discovery


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["bots/b.py", "bots/a.py"], {"a": "bots/a.py", "b": "bots/b.py"}),
        (["bots/pack/__init__.py", "bots/one.py"], {"one": "bots/one.py", "pack": "bots/pack"}),
        (["bots/_shared.py", "bots/__init__.py", "bots/notes.txt", "bots/no-module.py", "bots/data/x.py"], {}),
        (["bot.py"], {"bot": "bot.py"}),
        (["bot/__init__.py"], {"bot": "bot"}),
        (["bots/a.py", "bot.py"], {"a": "bots/a.py"}),
        (["bots/bot.py"], {"bot": "bots/bot.py"}),
        (["scripts/a.py"], {}),
    ],
)
def test_bots_are_found_where_the_sdk_looks(project: Path, files: list[str], found: dict[str, str]) -> None:
    for file in files:
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).touch()
    assert discover_bots(project) == found


def test_a_project_without_bots_says_where_to_put_one(project: Path) -> None:
    assert "put one at bots/NAME.py" in problems(project)


def test_a_declared_bot_may_have_another_module(project: Path) -> None:
    add_bots(project, "watcher")
    bot = one(project, {"bots": {"mainnet-watcher": {"module": "watcher"}}})
    assert (bot.name, bot.configuration.image) == ("mainnet-watcher", f"project:{project}#watcher")
    assert "has no module 'wacher'" in problems(project, {"bots": {"watcher": {"module": "wacher"}}})
    assert "did you mean" in problems(project, {"bots": {"watcher": {"module": "wacher"}}})


def test_a_setting_changes_a_bot_and_takes_no_other_away(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_bots(project, "left", "right")
    reading = read_section(project, ["bots.left.account=me"])
    bots = resolve(reading, project, kind="local", environ={}).bots
    assert {bot.name: bot.configuration.account for bot in bots} == {"left": "me", "right": None}
    monkeypatch.setenv("APE_SILVERBACK_BOTS__RIGHT__ACCOUNT", "you")
    bots = resolve(read_section(project), project, kind="local", environ={}).bots
    assert {bot.name: bot.configuration.account for bot in bots} == {"left": None, "right": "you"}
    monkeypatch.setenv("APE_SILVERBACK_BOTS__RIGTH__ACCOUNT", "you")
    with pytest.raises(ResolutionError, match="BOTS__RIGTH__ACCOUNT: this project has no bot 'rigth'; did you mean"):
        resolve(read_section(project), project, kind="local", environ={})
    monkeypatch.delenv("APE_SILVERBACK_BOTS__RIGTH__ACCOUNT")
    mistyped = read_section(project, ["bots.lefft.account=me"])
    with pytest.raises(ResolutionError, match="this project has no bot 'lefft'; did you mean 'left'"):
        resolve(mistyped, project, kind="local", environ={})


def test_names_and_globs_choose(project: Path) -> None:
    add_bots(project, "alpha", "beta", "betamax")
    assert [bot.name for bot in resolved(project, names=("beta*",)).bots] == ["beta", "betamax"]
    assert [bot.name for bot in resolved(project, names=("alpha", "beta", "alpha")).bots] == ["alpha", "beta"]
    assert "no bot 'gamma'" in problems(project, names=("gamma",))
    assert "did you mean" in problems(project, names=("alpa",))


def test_a_target_changes_bots_and_neither_hides_nor_makes_any(project: Path) -> None:
    add_bots(project, "a", "b")
    section: dict[str, Any] = {"targets": {"prod": {"bots": {"b": {"account": "me"}}}}}
    accounts = {bot.name: bot.configuration.account for bot in resolved(project, section, target="prod").bots}
    assert accounts == {"a": None, "b": "me"}
    section["bots"] = {"a": {}}
    assert [bot.name for bot in resolved(project, section).bots] == ["a"]
    assert problems(project, section, target="prod") == (
        "silverback.targets.prod.bots.b (ape-config.yaml:5): this project has no bot 'b'; known: a "
        "(a target changes bots; declare new ones under silverback.bots)"
    )
    assert "no target 'prd' in the silverback section; did you mean 'prod'?" in problems(project, section, target="prd")


# Networks and accounts, by where the bot will run


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("ethereum:local", "is a chain on one machine; name a public one, such as 'ethereum:mainnet'"),
        ("ethereum:sepolia-fork", "is a fork, which lives in the process of its provider; name 'ethereum:sepolia'"),
        ("ethereum:mainnet:https://rpc.example/key", "is an address, not a provider"),
        ("https://rpc.example", "is an address, not a provider"),
    ],
)
def test_a_network_of_one_machine_is_refused_for_a_hosted_cluster(project: Path, network: str, reason: str) -> None:
    add_bots(project, "a")
    section = {"network": network, "registry": "ghcr.io/org"}
    said = problems(project, section, kind="platform")
    assert said.startswith("a: can't run on a hosted cluster: ")
    assert reason in said
    assert "network (ape-config.yaml:2)" in said
    assert any(reason in warning for warning in resolved(project, section, kind="direct").warnings)
    assert not any(reason in warning for warning in resolved(project, section, kind="local").warnings)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("etherum", ["etherum", "ethereum"]),
        ("ethereum:sepola", ["sepola", "sepolia"]),
        ("arbitrm:mainnet", ["arbitrm", "arbitrum"]),
        ("starknet:mainnet", ["ape-starknet"]),
        ("noether", ["ape-noether"]),
    ],
)
def test_an_unknown_network_is_an_error_with_near_matches_or_the_plugin(
    project: Path, network: str, says: list[str]
) -> None:
    add_bots(project, "a")
    said = problems(project, {"network": network})
    for text in says:
        assert text in said, said


def test_a_provider_that_isnt_here_is_a_warning(project: Path) -> None:
    add_bots(project, "a")
    state = resolved(project, {"network": "ethereum:sepolia:alchemy"})
    assert state.bots[0].configuration.provider == "alchemy"
    [warning] = state.warnings
    assert "alchemy" in warning


def test_an_unknown_alias_is_a_warning(project: Path) -> None:
    add_bots(project, "a")
    [warning] = resolved(project, {"account": "deployer", "network": "ethereum:sepolia:node"}).warnings
    assert "no account 'deployer' (account (ape-config.yaml:2)) in Ape here" in warning


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"account": "TEST::0", "network": "ethereum:sepolia"}, "whose key is public"),
        ({"account": "TEST::0", "network": "ethereum:local"}, None),
        ({"account": "TEST::0", "network": "ethereum:sepolia-fork"}, None),
        ({"account": "TEST::99", "network": "ethereum:local"}, "the test accounts are TEST::0 to TEST::9"),
        ({"account": "TEST::x", "network": "ethereum:local"}, "the test accounts are TEST::0 to TEST::9"),
    ],
)
def test_test_accounts_are_for_local_networks(project: Path, section: dict[str, Any], says: str | None) -> None:
    add_bots(project, "a")
    if says:
        assert says in problems(project, section)
    else:
        assert one(project, section).configuration.account == section["account"]


def test_every_problem_of_every_bot_is_said_at_once(project: Path) -> None:
    add_bots(project, "a", "b")
    section = {"bots": {"a": {"network": "nowhere"}, "b": {"account": "TEST::0", "network": "ethereum:sepolia"}}}
    said = problems(project, section, kind="platform").splitlines()
    assert {line.partition(":")[0] for line in said} == {"a", "b"}
    assert any("has no image" in line for line in said)
    assert len(said) >= 3


# Images


def test_an_image_is_named_as_the_sdk_builds_it(project: Path) -> None:
    add_bots(project, "Watcher")
    bot = one(project, {"registry": "ghcr.io/org/", "tag": "v1"}, kind="direct")
    assert re.fullmatch(r"ghcr\.io/org/[a-z0-9._-]*-watcher:v1", bot.configuration.image)
    assert "registry of registry (ape-config.yaml:2)" in bot.origins["image"]
    assert "tag of tag (ape-config.yaml:3)" in bot.origins["image"]


def test_a_whole_image_wins_over_the_registry(project: Path) -> None:
    add_bots(project, "a")
    image = "ghcr.io/somebody/keeper@sha256:" + "0" * 64
    assert (
        one(
            project,
            {"registry": "x.example", "bots": {"a": {"image": image}}},
            kind="platform",
            options=Overrides(network="ethereum:sepolia:infura"),
        ).configuration.image
        == image
    )


@pytest.mark.parametrize("image", ["UPPER/case", "a b", "https://ghcr.io/a", "a:", "a@sha256:12", ":tag"])
def test_what_no_registry_would_take_is_refused(project: Path, image: str) -> None:
    add_bots(project, "a")
    assert "isn't a valid image reference" in problems(project, {"bots": {"a": {"image": image}}}, kind="direct")


def test_the_local_cluster_runs_the_folder_and_says_what_it_ignores(project: Path) -> None:
    add_bots(project, "a")
    state = resolved(project, {"bots": {"a": {"image": "ghcr.io/a/b:1"}}})
    assert state.bots[0].configuration.image == f"project:{project}#a"
    assert any("isn't used: the local cluster runs the project's folder" in warning for warning in state.warnings)


def test_an_image_that_processes_cant_run_is_named_where_there_is_no_module_for_it(project: Path) -> None:
    said = problems(project, {"bots": {"b": {"image": "ghcr.io/a/b:1"}}})
    assert "image 'ghcr.io/a/b:1' (bots.b.image" in said
    assert "runs bots as processes, from images project:PATH#MODULE only" in said
    assert "up --runtime docker" in said


def test_without_an_image_another_cluster_cant_run_it(project: Path) -> None:
    add_bots(project, "a")
    said = problems(project, kind="direct")
    assert "a: has no image: set `registry:`" in said
    assert "`bots.a.image`" in said


@pytest.mark.parametrize(("first", "second"), [("a", "A"), ("Price", "price")])
def test_two_bots_never_share_the_name_of_an_image(project: Path, first: str, second: str) -> None:
    add_bots(project, first, second)
    section: dict[str, Any] = {"registry": "ghcr.io/me"}
    assert f"its image would have the same name as that of bot '{second}'" in problems(
        project, section, kind="direct", names=(first,)
    )
    section["bots"] = {first: {}, second: {"image": "ghcr.io/me/other:1"}}
    assert len(resolved(project, section, kind="direct").bots) == 2
    section["bots"] = {first: {"module": "shared"}, second: {"module": "shared"}}
    assert len({bot.configuration.image for bot in resolved(project, section, kind="direct").bots}) == 1


@pytest.mark.parametrize("folder", ["with #1", "a#b#c", "new\nline", "é"])
def test_a_project_may_lie_in_any_folder(tmp_path: Path, folder: str) -> None:
    project = tmp_path / folder
    project.mkdir()
    add_bots(project, "a")
    image = one(project).configuration.image
    assert split_project_image(image) == (project, "a")
    ProcessRuntime(tmp_path).check(image)


@pytest.mark.parametrize("value", ["${ALIAS}", "$ALIAS"])
@pytest.mark.parametrize("key", ["account", "tag", "registry", "network", "credential"])
def test_a_variable_that_is_not_set_is_never_deployed_as_it_is_written(project: Path, key: str, value: str) -> None:
    add_bots(project, "a")
    section = {"registry": "ghcr.io/me", "network": "ethereum:sepolia", key: value}
    assert re.search(
        rf"a: {key} \(ape-config.yaml:\d\): environment variable ALIAS isn't set",
        problems(project, section, kind="direct"),
    )


def test_bytes_that_are_not_utf8_are_refused_before_anything_is_sent(project: Path) -> None:
    add_bots(project, "a")
    broken = os.fsdecode(b"caf\xe9")
    for options in (Overrides(account=broken), Overrides(tag=broken)):
        assert "isn't UTF-8 text" in problems(project, {"registry": "ghcr.io/me"}, kind="direct", options=options)


# Several networks

THREE = ["ethereum:mainnet", "arbitrum:mainnet", "base:mainnet"]


def test_a_bot_on_several_networks_is_a_bot_for_each_from_one_image(project: Path) -> None:
    add_bots(project, "compliance", "other")
    section: dict[str, Any] = {"registry": "ghcr.io/me", "bots": {"compliance": {"networks": THREE}, "other": {}}}
    state = resolved(project, section, kind="direct", options=Overrides(network="::alchemy"))
    first, second, third, other = state.bots
    assert [bot.name for bot in (first, second, third)] == [
        "compliance-ethereum-mainnet",
        "compliance-arbitrum-mainnet",
        "compliance-base-mainnet",
    ]
    [image] = {bot.configuration.image for bot in (first, second, third)}
    assert image.endswith("-compliance:latest")
    assert [bot.configuration.ecosystem for bot in (first, second, third)] == ["ethereum", "arbitrum", "base"]
    assert {bot.configuration.provider for bot in state.bots} == {"alchemy"}
    assert (first.family, other.family) == ("compliance", None)
    assert first.origins["network"] == "bots.compliance.networks (ape-config.yaml:5)"
    assert first.module == "compliance"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("compliance",), 3),
        (("compliance-base-mainnet",), 1),
        (("compliance-*-mainnet",), 3),
        (("*-base-*", "other"), 2),
        (("comp*",), 3),
        (("compliance", "compliance-base-mainnet"), 3),
    ],
)
def test_bots_of_several_networks_are_chosen_by_family_name_or_glob(
    project: Path, names: tuple[str, ...], chosen: int
) -> None:
    add_bots(project, "compliance", "other")
    section = {"bots": {"compliance": {"networks": THREE}, "other": {}}}
    assert len(resolved(project, section, names=names).bots) == chosen
    assert "did you mean 'compliance-base-mainnet'" in problems(project, section, names=("compliance-bas-mainnet",))


def test_values_may_differ_by_network_and_narrower_places_win(project: Path) -> None:
    add_bots(project, "a")
    networks = {"ethereum:mainnet": None, "base:mainnet": {"account": "x", "environment": ["base-rpc"]}}
    section = {
        "account": "me",
        "environment": ["rpc"],
        "bots": {"a": {"networks": networks}},
        "targets": {"t": {"account": "target"}, "local": {"network": "ethereum:local:foundry"}},
    }

    def values(**more: Any) -> list[tuple[str, str | None, tuple[str, ...]]]:
        found = resolved(project, section, **more).bots
        return [(bot.name, bot.configuration.account, bot.configuration.environment) for bot in found]

    assert values() == [("a-ethereum-mainnet", "me", ("rpc",)), ("a-base-mainnet", "x", ("base-rpc",))]
    assert [account for _, account, _ in values(target="t")] == ["target", "target"]
    assert values(target="local") == [("a", "me", ("rpc",))]
    [_, second] = resolved(project, section).bots
    assert second.origins["account"] == "bots.a.networks.base:mainnet.account (ape-config.yaml:10)"
    assert "option --network) is one network, but this bot runs on those of bots.a.networks" in problems(
        project, section, options=Overrides(network="ethereum:sepolia")
    )


def test_networks_may_be_given_at_every_level(project: Path) -> None:
    add_bots(project, "a", "b")
    section = {"networks": THREE[:2], "targets": {"test": {"networks": ["ethereum:sepolia", "base:sepolia"]}}}
    assert len(resolved(project, section).bots) == 4
    assert [bot.name for bot in resolved(project, section, target="test", names=("b",)).bots] == [
        "b-ethereum-sepolia",
        "b-base-sepolia",
    ]


def test_names_may_be_chosen_as_long_as_each_is_one_bots(project: Path) -> None:
    add_bots(project, "a", "b")

    def names(names: Any, networks: Any = THREE) -> list[str]:
        return [bot.name for bot in resolved(project, {"bots": {"a": {"networks": networks, "names": names}}}).bots]

    assert names("{bot}-{ecosystem}") == ["a-ethereum", "a-arbitrum", "a-base"]
    assert names({"base:mainnet": "special"}) == ["a-ethereum-mainnet", "a-arbitrum-mainnet", "special"]
    assert names("{bot}-{network}", ["ethereum:mainnet", "base:sepolia"]) == ["a-mainnet", "a-sepolia"]
    assert "a-mainnet: two networks of bot a have this name; set `names:`" in problems(
        project, {"bots": {"a": {"networks": THREE, "names": "{bot}-{network}"}}}
    )
    clash = {"a": {"networks": THREE, "names": "{bot}-{ecosystem}"}, "a-base": {"module": "b"}}
    assert "a-base: bots a and a-base have this name" in problems(project, {"bots": clash})


def test_an_earlier_name_of_a_family_stands_for_each_of_its_bots(project: Path) -> None:
    add_bots(project, "a")
    first, second = resolved(project, {"bots": {"a": {"networks": THREE[:2], "renamed-from": ["b", "c"]}}}).bots
    assert first.renamed_from == ("b-ethereum-mainnet", "c-ethereum-mainnet")
    assert second.renamed_from == ("b-arbitrum-mainnet", "c-arbitrum-mainnet")


def test_a_network_that_ape_does_not_know_stops_only_its_own_bot(project: Path) -> None:
    add_bots(project, "a", "b")
    section = {"bots": {"a": {"networks": ["ethereum:mainnet", "etherum:sepolia"]}, "b": {}}}
    assert "a on etherum:sepolia: unknown ecosystem 'etherum' (bots.a.networks (ape-config.yaml:4))" in problems(
        project, section
    )
    assert [bot.name for bot in resolved(project, section, names=("b",)).bots] == ["b"]


# Groups


@pytest.mark.parametrize("variable", ["SILVERBACK_CLUSTER_API_KEY", "SILVERBACK_BOT_NAME"])
def test_what_the_cluster_sets_itself_is_no_variable_of_a_group(project: Path, variable: str) -> None:
    add_bots(project, "a")
    section = {"environment": ["x"], "variables": {"x": ["SILVERBACK_LOG_LEVEL", variable]}}
    said = problems(project, section)
    assert said == f"variables.x (ape-config.yaml:5): {variable} is set by the cluster itself; use another name"


def test_declared_groups_are_resolved_when_a_bot_uses_them(project: Path) -> None:
    add_bots(project, "a")
    section = {
        "environment": ["rpc", "elsewhere"],
        "variables": {"rpc": ["KEY"], "unused": ["X"]},
        "targets": {"prod": {"variables": {"rpc": ["KEY", "URL"]}}},
    }
    [group] = resolved(project, section).groups
    assert (group.name, group.variables) == ("rpc", ("KEY",))
    [group] = resolved(project, section, target="prod").groups
    assert group.variables == ("KEY", "URL")


# Through the real command, with Ape's own settings


def test_a_project_without_a_section_resolves_both_bots_and_names_apes_rules(ape: Ape, project: Path) -> None:
    add_bots(project, "a", "b")
    (project / "ape-config.yaml").write_text("ethereum:\n  default_network: sepolia\n")
    result = ape("silverback", "cluster", "deploy", "--dry-run")
    assert result.returncode == 0, result.stderr
    blocks = re.split(r"\n\n", result.stdout.strip())
    assert [block.split()[0] for block in blocks] == ["a", "b"]
    for block in blocks:
        assert "found at bots/" in block
        assert re.search(r"ecosystem +ethereum +Ape's default ecosystem", block)
        assert re.search(r"network +sepolia +ethereum\.default_network in ape-config\.yaml", block)
        assert re.search(r"provider +\w+ +\S.*(default|Ape)", block)
        for line in block.splitlines()[1:]:
            assert len(re.split(r" {2,}", line.strip())) == 3, f"no origin: {line}"
    assert "No cluster is chosen" in result.stderr


@pytest.mark.parametrize(
    ("configuration", "option", "expected"),
    [
        ({"default_ecosystem": "ethereum", "ethereum": {"default_network": "sepolia"}}, None, ("ethereum", "sepolia")),
        ({"ethereum": {"sepolia": {"default_provider": "node"}}}, ":sepolia", ("ethereum", "sepolia", "node")),
        ({"ethereum": {"default_network": "sepolia"}}, "::alchemy", ("ethereum", "sepolia", "alchemy")),
        (
            {
                "networks": {
                    "custom": [
                        {"name": "apenet", "chain_id": 31338, "ecosystem": "ethereum", "default_provider": "node"}
                    ]
                }
            },
            "ethereum:apenet",
            ("ethereum", "apenet", "node"),
        ),
    ],
)
def test_the_projects_own_networks_and_defaults_decide(
    ape: Ape, project: Path, configuration: dict[str, Any], option: str | None, expected: tuple[str, ...]
) -> None:
    add_bots(project, "a")
    (project / "ape-config.yaml").write_text(yaml.safe_dump(configuration))
    options = ["--network", option] if option else []
    result = ape("silverback", "cluster", "deploy", "--dry-run", *options)
    assert result.returncode == 0, result.stderr
    for key, value in zip(("ecosystem", "network", "provider"), expected, strict=False):
        assert re.search(rf"^ +{key} +{value} ", result.stdout, re.MULTILINE), result.stdout
