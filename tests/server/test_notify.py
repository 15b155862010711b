"""Messages to people: grouped, limited, delivered in the background, and without the addresses in any text."""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from ape_silverback.server.notify import Digest, Event, Message, Notifier, apprise_sender


def test_twenty_bots_that_crash_at_once_are_one_message() -> None:
    digest = Digest("demo")
    for number in range(20):
        digest.add(Event("crashed", f"bot-{number}", "exited with code 1"), 100.0 + number / 10)
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
    digest.add(Event("unhealthy", "a", "silent for 5 min"), 0)
    assert digest.take(1) is not None
    for second in range(10, 50, 10):
        digest.add(Event("unhealthy", "a", "silent for 5 min"), second)
    assert digest.due() is None
    digest.add(Event("unhealthy", "a", "silent for 6 min"), 61)
    message = digest.take(62)
    assert message is not None
    assert message.body == "a: unhealthy (4 more since the last message): silent for 6 min"


def test_events_that_nobody_asked_for_arent_told() -> None:
    digest = Digest("demo", frozenset({"crashed"}))
    digest.add(Event("recovered", "a"), 0)
    assert digest.due() is None


def test_a_message_has_a_bound() -> None:
    digest = Digest("demo")
    for number in range(1000):
        digest.add(Event("crashed", f"bot-{number}"), 0)
    message = digest.take(1000)
    assert message is not None
    assert message.body.splitlines()[-1] == "… and 970 more"


def test_what_waits_is_sent_at_the_end() -> None:
    sent: list[Message] = []
    notifier = Notifier(Digest("demo", group_for=3600), lambda message: bool(sent.append(message)) or True)
    notifier.begin()
    notifier.tell(Event("crashed", "a"))
    notifier.end()
    assert [message.title for message in sent] == ["[demo] a: crashed"]


class Sink(HTTPServer):
    """Takes messages as apprise's JSON service sends them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[dict[str, Any]] = []
        self.status = 200


class Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_service_gets_the_message_and_a_refusal_never_shows_its_address(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    thread = threading.Thread(target=sink.serve_forever, daemon=True)
    thread.start()
    try:
        send = apprise_sender([f"json://user:hunter2@127.0.0.1:{sink.server_port}/path"])
        with caplog.at_level(logging.DEBUG):
            assert send(Message("[demo] a: crashed", "a: crashed: exited with code 1"))
            sink.status = 500
            assert not send(Message("again", "again"))
    finally:
        sink.shutdown()
        sink.server_close()
    assert sink.received[0]["title"] == "[demo] a: crashed"
    assert sink.received[0]["message"] == "a: crashed: exited with code 1"
    assert "hunter2" not in caplog.text


def test_an_address_that_no_service_knows_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="address 2 isn't one that apprise knows") as refused:
        apprise_sender(["json://127.0.0.1", "hunter2"])
    assert "hunter2" not in str(refused.value)
