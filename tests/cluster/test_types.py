"""The models of the API: units, encodings and product codes as the public SDK has them, log lines of every kind."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import Any

import pytest
from ape.logging import LogLevel
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from silverback.cluster import types as public

from ape_silverback.cluster.types import (
    BotInfo,
    BotLogEntry,
    ClusterConfiguration,
    ClusterHealth,
    ClusterInfo,
    ClusterTier,
    ResourceStatus,
    ServiceHealth,
    StreamInfo,
)

BOUNDS = {"cpu": 64, "memory": 128, "networks": 20, "bots": 250, "bandwidth": 250, "duration": 120}
configurations = st.fixed_dictionaries({name: st.integers(1, most) for name, most in BOUNDS.items()})
addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
MANAGER = "0xdAC17F958D2ee523a2206206994597C13D831ec7"


# Cluster configurations


@given(configurations)
def test_a_configuration_is_encoded_as_by_the_public_sdk(values: dict[str, int]) -> None:
    ours, theirs = ClusterConfiguration(**values), public.ClusterConfiguration(**values)
    assert ours.encode() == theirs.encode()
    assert ClusterConfiguration.decode(ours.encode()) == ours
    assert ClusterConfiguration.decode(ours.encode().to_bytes(8, "big")) == ours
    assert ClusterConfiguration.decode(ours) is ours


@given(configurations, addresses, st.uuids())
def test_a_product_code_equals_the_public_sdks(values: dict[str, int], owner: str, cluster: uuid.UUID) -> None:
    ours, theirs = ClusterConfiguration(**values), public.ClusterConfiguration(**values)
    code = ours.get_product_code(owner, cluster)
    assert len(code) == 32
    assert code == theirs.get_product_code(owner, cluster)
    assert ours.validate_product_code(owner, code[16:], cluster)
    assert theirs.validate_product_code(owner, code[16:], cluster)


@given(configurations, addresses, st.uuids(), st.integers(0, 15), st.integers(1, 255))
def test_no_changed_signature_is_taken(
    values: dict[str, int], owner: str, cluster: uuid.UUID, place: int, change: int
) -> None:
    configuration = ClusterConfiguration(**values)
    signature = bytearray(configuration.get_product_code(owner, cluster)[16:])
    signature[place] ^= change
    assert not configuration.validate_product_code(owner, bytes(signature), cluster)


def test_tiers_are_those_of_the_public_sdk() -> None:
    assert {tier.name: tier.value for tier in ClusterTier} == {tier.name: tier.value for tier in public.ClusterTier}
    assert ClusterTier.PREMIUM.configuration().bots == 20


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cpu", "1 vCPU", 1),
        ("cpu", "16vCPU", 16),
        ("memory", "2 GiB", 2),
        ("memory", " 128 ", 128),
        ("bandwidth", "5 KiB/sec", 5),
        ("bandwidth", "5 KiB/s", 5),
        ("duration", "3 months", 3),
        ("duration", "1 month", 1),
    ],
)
def test_an_amount_may_have_its_unit(name: str, text: str, value: int) -> None:
    assert getattr(ClusterConfiguration.model_validate({name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory", "2 GB"),
        ("memory", "2 MiB"),
        ("memory", "2.5 GiB"),
        ("memory", "GiB"),
        ("memory", "-1 GiB"),
        ("cpu", "1 GiB"),
        ("bandwidth", "5 KiB"),
        ("duration", "3 days"),
        ("bots", "5 bots"),
        ("cpu", "65 vCPU"),
        ("cpu", 0),
        ("duration", 121),
    ],
)
def test_a_wrong_unit_or_amount_is_an_error(name: str, text: Any) -> None:
    with pytest.raises(ValidationError):
        ClusterConfiguration.model_validate({name: text})


@pytest.mark.parametrize("value", [0, 2, "1", None, True, -1, ClusterConfiguration().encode() + 255, 1.0])
def test_what_encodes_no_configuration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's is one
        ClusterConfiguration.decode(value)


def test_amounts_are_shown_with_units_that_are_read_again() -> None:
    configuration = ClusterConfiguration(cpu=4, memory=8, bandwidth=5, duration=12)
    shown = configuration.settings_display_dict()
    assert shown["cluster"] == {"cpu": "4 vCPU", "memory": "8 GiB"}
    again = ClusterConfiguration.model_validate({**shown["cluster"], **shown["recorder"]})
    assert again == configuration


# Other models

CLUSTER = {
    "id": str(uuid.uuid4()),
    "version": None,
    "name": "n",
    "slug": "s",
    "created": "2026-01-01T00:00:00Z",
    "status": 4,
    "last_updated": "2026-01-01T00:00:00+02:00",
}


def test_what_a_newer_server_adds_is_ignored() -> None:
    found = ClusterInfo.model_validate({**CLUSTER, "mood": "good", "configuration": {"cpu": 2, "gpu": 1}})
    assert found.configuration == ClusterConfiguration(cpu=2)
    assert not hasattr(found, "mood")


def test_what_an_older_server_leaves_out_has_a_default() -> None:
    bot = BotInfo(
        id=uuid.uuid4(),
        name="a",
        created=datetime.now(timezone.utc),
        image="i",
        credential_name=None,
        ecosystem="e",
        network="n",
        provider="p",
        account=None,
        environment=[],
    )
    assert bot.cluster_access is False
    assert bot.task is None


@pytest.mark.parametrize("status", ResourceStatus)
def test_a_status_reads_as_a_word_and_travels_as_a_number(status: ResourceStatus) -> None:
    assert str(status) == status.name.capitalize() == str(public.ResourceStatus(status.value))
    travelled = ClusterInfo.model_validate({**CLUSTER, "status": int(status)})
    assert travelled.status is status
    assert f'"status":{int(status)}' in travelled.model_dump_json()


@given(st.dictionaries(st.text(), st.booleans()), st.dictionaries(st.text(), st.booleans()))
def test_a_cluster_is_healthy_when_all_of_it_is(networks: dict[str, bool], bots: dict[str, bool]) -> None:
    health = ClusterHealth(
        networks={name: ServiceHealth(healthy=healthy) for name, healthy in networks.items()},
        bots={name: ServiceHealth(healthy=healthy) for name, healthy in bots.items()},
    )
    assert health.cluster.healthy is all([*networks.values(), *bots.values()])
    assert health.model_dump()["cluster"] == {"healthy": health.cluster.healthy}


@pytest.mark.parametrize("manager", [MANAGER, MANAGER.lower(), "0x" + MANAGER[2:].upper()])
def test_the_manager_of_a_stream_comes_out_with_its_checksum(manager: str) -> None:
    stream = StreamInfo(chain_id=8453, manager=manager, stream_id=7)
    assert stream.manager == MANAGER
    assert str(stream) == f"eip155:8453:{MANAGER}/7"


@pytest.mark.parametrize(
    "manager", ["0x12", MANAGER[2:], MANAGER[:-1] + "8", "", None, 5, MANAGER + "00", "vitalik.eth"]
)
def test_what_is_no_address_is_no_manager(manager: Any) -> None:
    with pytest.raises(ValidationError):
        StreamInfo(chain_id=1, manager=manager, stream_id=0)


# Log lines


@pytest.mark.parametrize(
    ("line", "level", "time", "message"),
    [
        ("2026-11-23T10:00:00.123456Z INFO:     Block 5", LogLevel.INFO, "2026-11-23T10:00:00.123456", "Block 5"),
        ("2026-11-23T10:00:00Z SUCCESS:  done", LogLevel.SUCCESS, "2026-11-23T10:00:00", "done"),
        ("2026-11-23T10:00:00Z WARNING:  hm", LogLevel.WARNING, "2026-11-23T10:00:00", "hm"),
        ("2026-11-23T10:00:00Z ERROR:    no", LogLevel.ERROR, "2026-11-23T10:00:00", "no"),
        ("2026-11-23T10:00:00Z DEBUG:    x", LogLevel.DEBUG, "2026-11-23T10:00:00", "x"),
        ("2026-11-23T10:00:00Z   indented", None, "2026-11-23T10:00:00", "  indented"),
        ("2026-11-23T10:00:00Z", None, "2026-11-23T10:00:00", ""),
        ("INFO:     no time", None, None, "INFO:     no time"),
        ("2026-13-45T10:00:00Z INFO:     no such month", None, None, "2026-13-45T10:00:00Z INFO:     no such month"),
        ("", None, None, ""),
        ("\x00\ud800 rubbish", None, None, "\x00\ud800 rubbish"),
    ],
)
def test_a_raw_line_is_read(line: str, level: LogLevel | None, time: str | None, message: str) -> None:
    entry = BotLogEntry.parse_line(line)
    assert (entry.level, entry.message) == (level, message)
    assert (entry.timestamp and entry.timestamp.replace(tzinfo=None).isoformat()) == time


@given(st.text())
@example("2026-02-30T00:00:00Z INFO:     x")
@example("2026-11-23T10:00:00+99:99 INFO:     x")
def test_no_line_breaks_the_reader_or_loses_its_text(line: str) -> None:
    entry = BotLogEntry.parse_line(line)
    assert line.endswith(entry.message)
    assert entry.timestamp is not None or entry.message == line


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
    st.sampled_from(["DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR"]),
    st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"])),
)
def test_a_raw_line_is_read_as_by_the_public_sdk(time: datetime, level: str, message: str) -> None:
    line = f"{time.isoformat()}Z {level + ':':<9} {message}"
    ours, theirs = BotLogEntry.parse_line(line), public.BotLogEntry.parse_line(line)
    assert (ours.level, ours.timestamp) == (theirs.level, theirs.timestamp)
    assert ours.message.strip() == theirs.message.strip()


@pytest.mark.parametrize("level", [20, "20", "INFO", "info"])
def test_a_level_may_be_a_number_or_a_name(level: Any) -> None:
    assert BotLogEntry(level=level, message="x").level is LogLevel.INFO


def test_an_entry_is_written_as_the_raw_line_that_it_is_read_from() -> None:
    entry = BotLogEntry(level=LogLevel.ERROR, timestamp=datetime.now(timezone.utc), message="first\nsecond")
    assert BotLogEntry.parse_line(str(entry)) == entry
    assert str(BotLogEntry(message="  only text")) == "  only text"


def test_a_time_without_a_zone_is_in_utc() -> None:
    times = dict.fromkeys(("created", "last_updated", "expiration"), "2026-01-01T00:00:00")
    found = ClusterInfo.model_validate({**CLUSTER, **times})
    wanted = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert (found.created, found.last_updated, found.expiration) == (wanted, wanted, wanted)
