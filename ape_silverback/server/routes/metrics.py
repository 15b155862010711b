"""What bots record, ``/bots/{id}/metrics``, and the cluster's own measurements for Prometheus, ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from ape_silverback.server.metrics import read_results
from ape_silverback.server.routes import TheSupervisor
from ape_silverback.server.routes.bots import Bot
from ape_silverback.timezones import with_timezone

EXTENSIONS = ("metrics",)

router = APIRouter()


@router.get(
    "/bots/{bot}/metrics",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "A ``BotTaskResult`` a line"}},
)
def bot_metrics(
    supervisor: TheSupervisor,
    bot: Bot,
    name: Annotated[list[str] | None, Query(max_length=100)] = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> StreamingResponse:
    """Return what a bot recorded of its tasks, the oldest first: all, or what recorded one of some metrics."""
    work = supervisor.runtime.work_folder(bot.id)

    between = [moment and with_timezone(moment) for moment in (since, until)]

    def lines() -> Iterator[bytes]:
        for result in read_results(work, name or (), *between):
            yield result.model_dump_json().encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.get("/metrics", response_class=PlainTextResponse)
def prometheus_metrics(request: Request) -> PlainTextResponse:
    """Return the state of the cluster and its bots in the text format of Prometheus."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return PlainTextResponse(generate_latest(request.app.state.measurements.registry), media_type=CONTENT_TYPE_LATEST)
