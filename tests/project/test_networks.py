"""A network choice resolves through Ape's own rules, tells where each part came from, and connects to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ape_silverback.exceptions import ResolutionError
from ape_silverback.project.networks import (
    ConfigurationFiles,
    ResolvedNetwork,
    Sourced,
    combine,
    resolve_network,
    split_choice,
)
from ape_silverback.project.providers import first_installed, is_installed

NO_FILES = ConfigurationFiles((), {})


def resolved(*choices: str, files: ConfigurationFiles = NO_FILES) -> ResolvedNetwork:
    return resolve_network([Sourced(choice, f"place {number}") for number, choice in enumerate(choices)], files)


@pytest.mark.parametrize(
    ("choice", "parts"),
    [
        ("ethereum", ("ethereum", "", "")),
        ("ethereum:sepolia", ("ethereum", "sepolia", "")),
        (":sepolia", ("", "sepolia", "")),
        ("::alchemy", ("", "", "alchemy")),
        ("ethereum:local:http://127.0.0.1:8545", ("ethereum", "local", "http://127.0.0.1:8545")),
        ("ethereum::https://rpc.example/key", ("ethereum", "custom", "https://rpc.example/key")),
        ("http://127.0.0.1:8545", ("ethereum", "custom", "http://127.0.0.1:8545")),
        ("geth.ipc", ("ethereum", "custom", "geth.ipc")),
    ],
)
def test_a_choice_splits_as_ape_reads_it(choice: str, parts: tuple[str, str, str]) -> None:
    assert split_choice(Sourced(choice, "here")) == parts


@pytest.mark.parametrize("choice", ["a:b:c:d", "ethereum:local: foundry", "pid://1234"])
def test_what_is_no_choice_is_refused_with_its_place(choice: str) -> None:
    with pytest.raises(ResolutionError, match="option --network"):
        split_choice(Sourced(choice, "option --network"))


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (["ethereum:sepolia:alchemy", "arbitrum:mainnet:infura"], ["ethereum", "sepolia", "alchemy"]),
        (["::alchemy", "ethereum:sepolia:infura"], ["ethereum", "sepolia", "alchemy"]),
        ([":mainnet", "ethereum:sepolia:infura"], ["ethereum", "mainnet", None]),
        (["arbitrum", "ethereum:sepolia:infura"], ["arbitrum", None, None]),
        (["::alchemy", ":sepolia", "ethereum"], ["ethereum", "sepolia", "alchemy"]),
    ],
)
def test_a_later_choice_fills_in_only_what_lies_to_the_left(choices: list[str], expected: list[str | None]) -> None:
    parts = combine(Sourced(choice, "") for choice in choices)
    assert [part and part.value for part in parts] == expected


part = st.sampled_from(["", "one", "two", "three"])


@given(st.lists(st.tuples(part, part, part), max_size=5))
def test_no_combination_pairs_a_part_with_the_wrong_owner(choices: list[tuple[str, str, str]]) -> None:
    """A provider never comes from a later place than its network, nor a network from a later one than its ecosystem."""
    parts = combine(Sourced(":".join(choice), str(place)) for place, choice in enumerate(choices))
    origins = [int(part.origin) for part in parts if part]
    assert origins == sorted(origins, reverse=True)
    for place, part_ in enumerate(parts):
        if part_:
            assert choices[int(part_.origin)][place] == part_.value


def test_without_any_choice_ape_decides_and_the_origins_name_its_rules() -> None:
    network = resolved()
    assert network.choice == "ethereum:local:test"
    assert network.ecosystem.origin == "Ape's default ecosystem"
    assert "Ape's rule" in network.network.origin
    assert "default_network isn't set" in network.network.origin
    assert "Ape's rule" in network.provider.origin


def test_an_ecosystem_alone_takes_its_default_network_and_that_networks_default_provider() -> None:
    network = resolved("arbitrum")
    assert network.choice == "arbitrum:mainnet:node"
    assert network.ecosystem.origin == "place 0"
    assert "first network of arbitrum" in network.network.origin
    assert "first provider installed" in network.provider.origin


def test_a_provider_that_is_not_installed_is_kept_with_a_warning() -> None:
    network = resolved("ethereum:sepolia:alchemy")
    assert network.choice == "ethereum:sepolia:alchemy"
    assert any("'alchemy'" in warning and "ape-alchemy" in warning for warning in network.warnings)


@pytest.mark.parametrize(
    ("choice", "flags"),
    [
        ("ethereum:sepolia", (False, False, False)),
        ("ethereum:local", (True, False, False)),
        ("ethereum:mainnet-fork", (False, True, False)),
        ("ethereum:local:http://127.0.0.1:8545", (True, False, True)),
        ("https://rpc.example", (False, False, True)),
    ],
)
def test_local_fork_and_adhoc_networks_are_told_apart(choice: str, flags: tuple[bool, bool, bool]) -> None:
    network = resolved(choice)
    assert (network.is_local, network.is_fork, network.is_adhoc) == flags


@pytest.mark.parametrize(
    ("choice", "texts"),
    [
        ("etherum:mainnet", ["unknown ecosystem 'etherum'", "did you mean 'ethereum'", "ape-etherum", "place 0"]),
        ("polygon-zkevmm", ["unknown ecosystem 'polygon-zkevmm'", "polygon-zkevm"]),
        ("cairo:mainnet", ["unknown ecosystem 'cairo'", "ape plugins install cairo"]),
        ("sepolia", ["unknown ecosystem 'sepolia'", "write ':sepolia'"]),
        ("ethereum:sepola", ["unknown network 'sepola' in ethereum", "did you mean 'sepolia'", "place 0"]),
    ],
)
def test_what_ape_does_not_know_is_an_error_with_near_matches(choice: str, texts: list[str]) -> None:
    with pytest.raises(ResolutionError) as error:
        resolved(choice)
    for text in texts:
        assert text in str(error.value)


@pytest.mark.parametrize(
    "choice",
    [
        "ethereum:local",
        "ethereum:sepolia",
        "ethereum:sepolia-fork",
        "arbitrum:mainnet",
        "base:mainnet-fork",
    ],
)
def test_the_installed_providers_are_those_that_ape_lists(choice: str) -> None:
    from ape.utils.basemodel import ManagerAccessMixin

    ecosystem, _, name = choice.partition(":")
    network = ManagerAccessMixin.network_manager.get_ecosystem(ecosystem).networks[name]
    assert first_installed(network) == next(iter(network.providers), None)
    for provider in ("node", "test", "foundry", "alchemy"):
        assert is_installed(network, provider) == (provider in network.providers)


def test_a_network_resolves_without_loading_an_evm(project: Path) -> None:
    script = (
        "import sys\nfrom ape_silverback.project.networks import *\n"
        "for choice in ('ethereum:sepolia:node', 'arbitrum', 'ethereum:mainnet:alchemy'):\n"
        "    resolve_network([Sourced(choice, '')], ConfigurationFiles((), {}))\n"
        "print('eth' in sys.modules, 'ape_test.provider' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True, check=True)
    assert result.stdout == "False False\n"


def declaring(content: dict[str, Any], **environ: str) -> ConfigurationFiles:
    return ConfigurationFiles((("ape-config.yaml", content),), environ)


def test_a_declaration_is_found_in_both_spellings() -> None:
    files = declaring({"my-chain": {"default-network": "x"}})
    assert files.declaring("my_chain", "default_network") == "my_chain.default_network in ape-config.yaml"
    assert files.declared("my_chain", "default_network") == "x"


def test_a_declaration_of_the_environment_is_named_as_such() -> None:
    files = declaring({}, APE_DEFAULT_ECOSYSTEM="arbitrum")
    assert files.declaring("default_ecosystem") == "environment variable APE_DEFAULT_ECOSYSTEM"


def test_a_declared_default_network_that_ape_does_not_know_is_an_error_where_ape_would_use_local() -> None:
    with pytest.raises(ResolutionError, match=r"'sepola'.*ethereum.default_network in ape-config.yaml.*sepolia"):
        resolved("ethereum", files=declaring({"ethereum": {"default_network": "sepola"}}))
