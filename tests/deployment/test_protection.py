"""Which bots can't be removed by hand."""

from __future__ import annotations

from pathlib import Path

from ape_silverback.cluster.types import BotConfiguration
from ape_silverback.config.reader import read_section
from ape_silverback.deployment.protection import protected_bots
from ape_silverback.deployment.state import RecordedBot

SECTION = """
silverback:
  bots:
    alone: {protect: true}
    many:
      networks: [ethereum:mainnet, base:mainnet]
      protect: true
    free: {}
  targets:
    production:
      bots:
        free: {protect: true}
"""
CONFIGURATION = BotConfiguration(image="a/b:1", ecosystem="ethereum", network="mainnet", provider="node")


def recorded(name: str, family: str | None = None, *, protect: bool = False) -> RecordedBot:
    return RecordedBot(name=name, family=family, configuration=CONFIGURATION, protect=protect)


def test_the_section_protects_its_bots_on_each_of_their_networks_and_for_any_target(project: Path) -> None:
    (project / "ape-config.yaml").write_text(SECTION)
    protected = protected_bots(read_section(project), [recorded("many-base-mainnet", "many"), recorded("other")])
    assert set(protected) == {"alone", "many", "many-base-mainnet", "free"}
    assert protected["many-base-mainnet"] == (
        "many-base-mainnet is protected (silverback.bots.many.protect in ape-config.yaml:7): remove that key first"
    )
    assert "(silverback.targets.production.bots.free.protect in ape-config.yaml:12)" in protected["free"]


def test_a_bot_that_the_section_no_longer_has_stays_protected_and_one_that_it_frees_doesnt(project: Path) -> None:
    (project / "ape-config.yaml").write_text("silverback:\n  bots:\n    freed: {}\n")
    before = [recorded("gone", protect=True), recorded("freed", protect=True)]
    assert protected_bots(read_section(project), before) == {
        "gone": "gone is protected by its last deployment: deploy it once with `protect: false` first"
    }
