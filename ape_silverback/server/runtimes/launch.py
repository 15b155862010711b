"""One start of a bot on an engine, in a thread: its image is pulled if need be, then its container is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import parse_repository_tag
from requests.exceptions import RequestException

from ape_silverback.server.runtimes import EngineError, Run
from ape_silverback.server.runtimes.engine import Engine, engine_text, pull_error


class Launch:
    """A start of a bot that goes on while others are polled.

    Args:
        engine: the client of the engine.
        create: makes the bot's container of its image, and returns its id.

    Attributes:
        note: what it is doing.
        failure: why the bot couldn't be started; None while it isn't known, or when it was.
        finished: whether there is nothing more to come.
    """

    def __init__(self, engine: Engine, run: Run, create: Callable[[Run, Mapping[str, Any]], str]) -> None:
        self.engine = engine
        self.run = run
        self.create = create
        self.note: str | None = None
        self.failure: str | None = None
        self.finished = False
        self._cancelled = threading.Event()
        self._starting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"start of {run.name}", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """End it, unless the bot is started already. That waits for no registry: a pull may end later."""
        with self._starting:
            self._cancelled.set()
            self._finish("stopped before it was started")

    def _run(self) -> None:
        failure = None
        try:
            image = self._image()
            with self._starting:
                if not self._cancelled.is_set():
                    self.engine.start(self.create(self.run, image))
                    self._finish(None)
        except (DockerException, RequestException, EngineError, OSError) as error:
            failure = engine_text(error)
        finally:
            with self._starting:
                self._finish(failure)

    def _finish(self, failure: str | None) -> None:
        if not self.finished:
            self.failure = failure
            self.finished = True

    def _image(self) -> dict[str, Any]:
        """Return the image as the engine has it, pulled if need be."""
        with suppress(ImageNotFound):
            return dict(self.engine.inspect_image(self.run.image))
        self._pull()
        return dict(self.engine.inspect_image(self.run.image)) if not self._cancelled.is_set() else {}

    def _pull(self) -> None:
        """Pull the image, and note how far that is.

        Raises:
            EngineError: it can't be pulled.
        """
        self.note = f"pulling {self.run.image}"
        repository, tag = parse_repository_tag(self.run.image)
        credential = self.run.credential
        login = {"username": credential.username, "password": credential.password} if credential else None
        layers: dict[str, str] = {}
        try:
            events = self.engine.pull(repository, tag or "latest", stream=True, decode=True, auth_config=login)
        except APIError as error:
            raise EngineError(pull_error(self.run, engine_text(error))) from error
        for event in events:
            if self._cancelled.is_set():
                break
            if "error" in event:
                raise EngineError(pull_error(self.run, str(event["error"])))
            if "id" in event and event.get("status", "").split(":")[0] != "Pulling from":
                layers[event["id"]] = event.get("status", "")
            there = sum(status in ("Pull complete", "Already exists") for status in layers.values())
            self.note = f"pulling {self.run.image}: {there} of {len(layers)} layers"
        self.note = None
