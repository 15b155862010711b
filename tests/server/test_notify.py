"""Messages to people: grouped, limited, delivered in the background, and without the addresses in any text."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ape_silverback.exceptions import ConfigurationError
from ape_silverback.server.notify import Digest, Message, Notice, Notifier, apprise_sender
from tests.conftest import Ape
from tests.server.sink import Sink, serving


def test_twenty_bots_that_crash_at_once_are_one_message() -> None:
    digest = Digest("demo")
    for number in range(20):
        digest.add(Notice("crashed", f"bot-{number}", "exited with code 1"), 100.0 + number / 10)
    assert digest.due() == 110.0
    assert digest.take(109.9) is None
    message = digest.take(110.0)
    assert message is not None
    assert message.title == "[demo] 20 x crashed"
    assert message.body.splitlines()[0] == "bot-0: crashed: exited with code 1"
    assert len(message.body.splitlines()) == 20
    assert digest.due() is None


def test_the_same_event_is_told_once_in_a_while_and_counted() -> None:
    digest = Digest("demo", group_for=1, quiet_for=60)
    digest.add(Notice("unhealthy", "a", "silent for 5 min"), 0)
    assert digest.take(1) is not None
    for second in range(10, 50, 10):
        digest.add(Notice("unhealthy", "a", "silent for 5 min"), second)
    assert digest.due() is None
    digest.add(Notice("unhealthy", "a", "silent for 6 min"), 61)
    message = digest.take(62)
    assert message is not None
    assert message.body == "a: unhealthy (4 more since the last message): silent for 6 min"


def test_events_that_nobody_asked_for_arent_told() -> None:
    digest = Digest("demo", frozenset({"crashed"}))
    digest.add(Notice("recovered", "a"), 0)
    assert digest.due() is None


def test_a_message_has_a_bound() -> None:
    digest = Digest("demo")
    for number in range(1000):
        digest.add(Notice("crashed", f"bot-{number}"), 0)
    message = digest.take(1000)
    assert message is not None
    assert message.body.splitlines()[-1] == "… and 970 more"


def test_what_waits_is_sent_at_the_end() -> None:
    sent: list[Message] = []
    notifier = Notifier(Digest("demo", group_for=3600), lambda message: bool(sent.append(message)) or True)
    notifier.begin()
    notifier.tell(Notice("crashed", "a"))
    notifier.end()
    assert [message.title for message in sent] == ["[demo] a: crashed"]


def test_a_service_gets_the_message_and_a_refusal_never_shows_its_address(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Sink()) as sink, caplog.at_level(logging.DEBUG):
        send = apprise_sender({"SLACK_URL": sink.address})
        assert send(Message("[demo] a: crashed", "a: crashed: exited with code 1"))
        sink.status = 500
        assert not send(Message("again", "again"))
    assert sink.received[0]["title"] == "[demo] a: crashed"
    assert sink.received[0]["message"] == "a: crashed: exited with code 1"
    assert "hunter2" not in caplog.text


def test_an_address_that_no_service_knows_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="SLACK_URL doesn't hold an address that apprise knows") as refused:
        apprise_sender({"JSON_URL": "json://127.0.0.1", "SLACK_URL": "hunter2"})
    assert "hunter2" not in str(refused.value)


def test_the_command_sends_a_test_message_to_what_the_section_names(ape: Ape, project: Path) -> None:
    command = ("silverback", "cluster", "notify", "test")
    assert "names no variable" in ape(*command).stderr
    (project / "ape-config.yaml").write_text("silverback:\n  notify: {urls: [SLACK_URL]}\n")
    unset = ape(*command)
    assert (unset.returncode, "SLACK_URL isn't set: `notify.urls`" in unset.stderr) == (1, True)
    with serving(Sink()) as sink:
        sent = ape(*command, SLACK_URL=sink.address)
        assert (sent.returncode, sent.stdout) == (0, "Sent a message to SLACK_URL.\n")
        assert sink.received[0]["title"] == "ape-silverback: test message"
        sink.status = 500
        refused = ape(*command, SLACK_URL=sink.address)
    assert (refused.returncode, refused.stderr) == (1, "Error: the service didn't take the message: SLACK_URL\n")
