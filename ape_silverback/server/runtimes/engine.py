"""The Docker Engine: how it is found and reached, and what its answers mean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, cast

import docker
import requests
from docker.context import ContextAPI
from docker.errors import APIError, DockerException
from docker.types import CancellableStream
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

from ape_silverback.server.runtimes import EngineError, Run

TIMEOUT = 30
"""Seconds that the engine gets for an answer."""

Engine = Any
"""The low-level client of PyPI ``docker``, whose types are incomplete."""


def connect(options: Mapping[str, str]) -> Engine:
    """Return a client of the engine that the options name, else the environment.

    Raises:
        EngineError: it doesn't answer.
    """
    options = {**engine_of_environment(), **options} if "host" not in options else options
    arguments: dict[str, Any] = {"base_url": options["host"]} if "host" in options else {}
    if folder := options.get("certificates"):
        place = Path(folder)
        arguments["tls"] = docker.tls.TLSConfig(
            client_cert=(str(place / "cert.pem"), str(place / "key.pem")), ca_cert=str(place / "ca.pem"), verify=True
        )
    if options.get("host", "").startswith("ssh://"):
        arguments["use_ssh_client"] = True
    try:
        engine = docker.APIClient(version="auto", timeout=TIMEOUT, **arguments)
        engine.ping()
    except (DockerException, RequestException, OSError) as error:
        where = options.get("host", "unix:///var/run/docker.sock")
        raise EngineError(f"no Docker Engine answers at {where}: {engine_text(error)}") from error
    return engine


def engine_of_environment() -> dict[str, str]:
    """Return where the engine is that ``DOCKER_HOST`` or Docker's current context names."""
    if host := kwargs_from_env().get("base_url"):
        secured = os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH")
        folder = os.environ.get("DOCKER_CERT_PATH") or str(Path.home() / ".docker")
        return {"host": host, **({"certificates": folder} if secured else {})}
    with suppress(DockerException, OSError, KeyError):
        if host := ContextAPI.kwargs_from_context().get("base_url"):
            return {"host": host}
    return {}


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn what the engine refuses into ``EngineError``."""
    try:
        yield
    except (DockerException, RequestException) as error:
        raise EngineError(engine_text(error)) from error


def engine_text(error: Exception) -> str:
    """Return an engine's reason for a failure, in one line."""
    text = str(error.explanation if isinstance(error, APIError) and error.explanation else error)
    return " ".join(text.split())


def is_refusal(text: str) -> bool:
    """Return whether a registry refused who asked, by what the engine or the registry answered."""
    return any(word in text.lower() for word in ("unauthorized", "authentication required", "no basic auth"))


def pull_error(run: Run, text: str) -> str:
    """Return why an image can't be pulled, from what the engine or the registry answered."""
    refused = is_refusal(text)
    if refused and run.credential:
        credential = run.credential
        text = (
            f"{credential.hostname} refused the bot's registry credential (user {credential.username}); "
            "correct it with `ape silverback cluster registry update`"
        )
    elif refused:
        text = f"{text}; the registry needs a credential; set `credential:` for the bot"
    return f"image '{run.image}' can't be pulled: {text}"


def moment(text: str) -> datetime | None:
    """Return a time of the engine; None for the one that means none."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    found = datetime.fromisoformat(seconds).replace(tzinfo=timezone.utc, microsecond=int(f"{fraction:0<6}"[:6]))
    return found if found.year > 1 else None


def unix_time(stamp: str) -> str:
    """Return a stamp of a log as seconds since 1970, with nanoseconds."""
    found, fraction = stamp.rstrip("Z").split(".")
    seconds = datetime.fromisoformat(found).replace(tzinfo=timezone.utc).timestamp()
    return f"{seconds:.0f}.{fraction}"


class Followed:
    """An answer of the engine that another thread may end, while it is read."""

    def __init__(self, answer: requests.Response) -> None:
        self.answer = answer
        self.raw = cast("IO[bytes]", answer.raw)

    def close(self) -> None:
        """End it, and the read that waits for more of it."""
        CancellableStream(iter(()), self.answer).close()
