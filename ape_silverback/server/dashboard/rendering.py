"""How pages are made: templates, the headers that every answer has, and streams that keep a page up to date."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool

from ape_silverback.server.authentication import Role
from ape_silverback.server.dashboard.sessions import role_of
from ape_silverback.server.runtimes import NodesRuntime

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REFRESH = 1.0
"""Seconds between two looks for something new to show."""

KEEP_ALIVE = 15.0
"""Seconds after which a stream sends something though there is nothing new, so that a lost reader is noticed."""


def moment_text(moment: datetime | None) -> str:
    """Return a time as pages show it, in the time zone of the server; empty for none."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}" if moment else ""


def minute_text(moment: datetime) -> str:
    """Return a time without its seconds, in the time zone of the server."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M %Z}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ape_silverback.server.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = moment_text
    environment.filters["minute"] = minute_text
    return environment


_templates = _environment()


def root_of(request: Request) -> str:
    """Return what every path of this cluster begins with: empty unless it is one of a platform's."""
    return str(request.scope.get("root_path", ""))


def render(request: Request, template: str, **content: Any) -> str:
    """Return what a template makes of some content."""
    return _templates.get_template(template).render(root=root_of(request), **content)


def page(request: Request, role: Role | None, template: str, status: int = 200, **content: Any) -> Response:
    """Answer with a whole page."""
    shared: Mapping[str, Any] = {
        "role": role,
        "page": "",
        "has_nodes": isinstance(request.app.state.supervisor.runtime, NodesRuntime),
    }
    return HTMLResponse(render(request, template, **{**shared, **content}), status, SECURITY_HEADERS)


def fragment(request: Request, template: str, **content: Any) -> Response:
    """Answer with a part of a page."""
    return HTMLResponse(render(request, template, **content), headers=SECURITY_HEADERS)


def updates(request: Request, parts: Callable[[], dict[str, str] | None]) -> Response:
    """Stream parts of a page, each again when it changed, for as long as its reader is logged in.

    Args:
        parts: returns name of a part → what it is now; None once what the page is about is gone.
    """

    async def events() -> AsyncIterator[bytes]:
        sent: dict[str, str] = {}
        silent = 0.0
        while not await request.is_disconnected():
            now = await run_in_threadpool(lambda: parts() if role_of(request) else None)
            if now is None:
                return
            for name, html in now.items():
                if sent.get(name) != html:
                    sent[name], silent = html, 0.0
                    yield _event(name, html)
            silent += REFRESH
            if silent >= KEEP_ALIVE:
                silent = 0.0
                yield b": still there\n\n"
            await asyncio.sleep(REFRESH)

    return event_stream(events())


def event_stream(events: AsyncIterator[bytes]) -> Response:
    """Answer with server-sent events."""
    return StreamingResponse(
        events, media_type="text/event-stream", headers={**SECURITY_HEADERS, "X-Accel-Buffering": "no"}
    )


def log_event(line: bytes, level_name: Callable[[int], str]) -> bytes:
    """Return an entry of a log as an event, with the name of its level in place of the number."""
    entry = json.loads(line)
    level = entry.get("level")
    entry["level"] = None if level is None else level_name(level)
    return b"event: line\ndata: " + json.dumps(entry).encode() + b"\n\n"


def _event(name: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    return f"event: {name}\n{lines}\n".encode()
