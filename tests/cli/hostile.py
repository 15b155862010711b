"""A cluster and a platform whose every text would do something to a terminal, and what a terminal may get."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.cluster.server import BOT, CLUSTER, CREDENTIAL, GROUP, WORKSPACE, Reply, Request, answer

FORGED = "FORGED"
EVIL = (
    "x\x1b]0;owned\x07\x1b[2J\x1b[8mhidden\x1b[31m\x9b2K\u202egnp.exe\u2066\u200b\u2028"
    f"\r\n{FORGED}: healthy\n{FORGED}   running\t\x00\x08\x7f\x85{FORGED}\u2029\U000e0041\ufeff"
)
"""Each kind of what a terminal obeys, or people's eyes: titles, clearing, hiding, direction, forged lines, tags."""

MAY_COME = re.compile(
    "\x1b\\[(?:[0-9;]*m|[?](?:25|1049)[hl]|[0-9]*[AGK]|H)"  # colours; what a table that is redrawn needs
)
OBEYED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e0fff]"
)


def look_at(shown: str) -> None:
    """Fail where a terminal got something that isn't ours."""
    rest = MAY_COME.sub("", shown)
    assert not (found := OBEYED.search(rest)), f"{found!r} in {rest!r}"
    assert "\x1b[8m" not in shown
    for line in re.split(r"[\r\n]+", rest):
        assert not line.startswith(FORGED), f"a forged line in {shown!r}"


def evil(thing: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a thing of the API with evil texts."""
    return {**thing, **dict.fromkeys(names, EVIL)}


BOTS = [
    evil(BOT, "name", "image", "ecosystem", "network", "provider", "account", "credential_name")
    | {
        "environment": [EVIL],
        "task": {
            "last_status": EVIL,
            "exit_code": 1,
            "reason": EVIL,
            "started_at": "2026-01-01T00:00:00Z",
            "stop_code": EVIL,
            "stopped_at": "2026-01-01T00:00:00Z",
            "stopped_reason": EVIL,
        },
    },
    {**BOT, "id": BOT["id"].replace("1", "9"), "name": "a"},
]
PARTS: list[tuple[str, Any]] = [
    (r"/openapi\.json", {"info": {"version": EVIL, "x-runtime": EVIL}}),
    (r"/bots/[^/]+/status", 7),
    (r"/bots/[^/]+/health", {"healthy": False}),
    (r"/bots/[^/]+/errors", [EVIL, f"Error: {EVIL}"]),
    (r"/bots", BOTS),
    (r"/health", {"networks": {EVIL: {"healthy": False}}, "bots": {EVIL: {"healthy": False}}}),
    (r"/vars", [evil(GROUP, "name") | {"variables": [EVIL]}]),
    (r"/credentials", [evil(CREDENTIAL, "id", "name", "hostname")]),
    (r"/versions", [EVIL]),
    (r"/users/.*", {"username": EVIL}),
    (r"/workspaces", [evil(WORKSPACE, "name", "slug"), WORKSPACE]),
    (r"/clusters/[^/]+/stream", {"chain_id": 1, "manager": EVIL, "stream_id": 1}),
    (r"/clusters/?", [evil(CLUSTER, "name", "slug", "version"), evil(CLUSTER, "version", "name")]),
    (r"/streams/manager/.*", EVIL),
    (r"/streams/tokens/.*", [{"symbol": EVIL, "address": "0x9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0"}]),
]


def behave(request: Request) -> Reply:
    """Answer what is asked for with evil texts, and refuse everything that writes with evil reasons."""
    if request.method != "GET":
        detail = [{"loc": ["body", EVIL, 0], "msg": EVIL, "type": EVIL}]
        return answer(
            {"detail": EVIL if request.method == "DELETE" else detail}, 409 if request.method == "DELETE" else 422
        )
    path = re.sub(r"^/c/[^/]+/[^/]+", "", request.path)
    if re.fullmatch(r"/bots/[^/]+/logs", path):
        entry = {"level": "ERROR", "timestamp": "2026-01-01T00:00:00Z", "message": f"\x1b[32mgreen\x1b[0m {EVIL}"}
        return Reply(200, f"{json.dumps(entry)}\n{EVIL}\n".encode(errors="replace"))
    for pattern, content in PARTS:
        if re.fullmatch(pattern, path):
            return answer(content)
    return answer({"detail": EVIL}, 404)


class Welcoming:
    """A cluster that takes what is created, and whose bots stop with evil reasons."""

    def __init__(self) -> None:
        self.bots: list[dict[str, Any]] = []
        self.groups: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> Reply:
        """Answer a request."""
        match request.method, request.path.strip("/").split("/"):
            case "POST", ["vars"]:
                self.groups.append({**GROUP, "name": request.query["name"], "variables": list(request.json())})
                return answer(self.groups[-1])
            case "POST", ["bots"]:
                number = str(len(self.bots) + 1)
                wanted = request.json()
                task = {**BOTS[0]["task"], "last_status": "STOPPED"}
                bot = {**BOT, **wanted, "id": BOT["id"].replace("1", number), "credential_name": None, "task": task}
                self.bots.append(bot)
                return answer(bot)
            case "POST" | "PATCH", ["bots", *_]:
                return answer({"detail": EVIL}, 409)
            case "GET", ["bots"]:
                return answer(self.bots)
            case "GET", ["vars"]:
                return answer(self.groups)
            case "GET", ["credentials"]:
                return answer([])
        return behave(request)
