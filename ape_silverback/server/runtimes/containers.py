"""What a bot's container is made of: labels, environment, user, command, and the folders that it may write to."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ape_silverback.server.runtimes import Run, RuntimeSettings, sdk
from ape_silverback.server.runtimes.engine import TIMEOUT, Engine

LABEL = "io.ape-silverback"
CLUSTER_LABEL, BOT_LABEL, NAME_LABEL = f"{LABEL}.cluster", f"{LABEL}.bot", f"{LABEL}.name"

SESSIONS = ".silverback-sessions"
"""Where the bot SDK keeps its state and records, in the folder that it runs in."""

SDK_FOLDER = "/home/harambe/project"
"""Work folder of the bot SDK's images, and of ours. What a bot writes there is known, so the rest can be read-only."""

SDK_WRITES = (
    *(f"/home/harambe/{name}" for name in (".ape", ".cache", ".silverback")),
    *(f"{SDK_FOLDER}/{name}" for name in (".build", ".cache")),
)

TMP = "/tmp"  # noqa: S108 - of the container

NO_USER = "65534:65534"
"""Who a bot is whose image names no user, or root."""

EXTENSION_FOLDER, EXTENSION = ".cluster", "sitecustomize.py"
"""Where ``sdk.py`` is in ``SESSIONS``, the one place that can be written before a container starts, and its name there:
Python imports a module of this name first."""

MOST_PROCESSES = 512
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
"""The engine's own copy of a log is only on the way to the cluster's."""


@dataclass(frozen=True)
class Layout:
    """How an image is run.

    Attributes:
        user: who the bot is; None for who the image names.
        command: what it is run with; None for the image's own.
        folder: where it runs.
        there: which of the folders that the bot SDK writes to the image has, ``SESSIONS`` included.
        python_path: where its Python looks for modules first; None where that isn't known.
    """

    user: str | None
    command: list[str] | None
    folder: str = "/"
    there: frozenset[str] = frozenset()
    python_path: str | None = None

    @property
    def sessions(self) -> str:
        """Where the bot SDK keeps its state."""
        return f"{self.folder.rstrip('/')}/{SESSIONS}"

    @property
    def is_sdk(self) -> bool:
        """Whether it is one of the bot SDK's, so that all that a bot writes to is known."""
        return self.folder == SDK_FOLDER

    @property
    def brought(self) -> list[str]:
        """Folders for a volume each: what the image has there is copied, with its owner."""
        return sorted(self.there - {self.sessions}) if self.is_sdk else []

    @property
    def scratch(self) -> list[str]:
        """Folders for memory: a new volume there would belong to root."""
        return [path for path in (TMP, *SDK_WRITES) if path not in self.there] if self.is_sdk else []


UNKNOWN = Layout(user=None, command=["run"])
"""Of an image that only other engines have: it is run as one of the bot SDK."""


def layout_of(config: Mapping[str, Any], there: frozenset[str] = frozenset()) -> Layout:
    """Return how an image is run, from its configuration.

    Its user stays unless that is root. ``run`` is the command of an image of the bot SDK that names none.
    """
    named = str(config.get("User") or "").partition(":")[0]
    entry = config.get("Entrypoint") or []
    is_plain = entry and PurePosixPath(entry[0]).name == "silverback" and not config.get("Cmd")
    return Layout(
        user=None if named not in ("", "root", "0") else NO_USER,
        command=["run"] if is_plain else None,
        folder=config.get("WorkingDir") or "/",
        there=there,
        python_path=_environment_of_image(config).get("PYTHONPATH", ""),
    )


def _environment_of_image(config: Mapping[str, Any]) -> dict[str, str]:
    return dict(one.split("=", 1) for one in config.get("Env") or () if "=" in one)


class Layouts:
    """How the images are run that an engine has; each is looked into once.

    Args:
        cluster: whose containers those are that are made to look into an image.
    """

    def __init__(self, engine: Engine, cluster: str) -> None:
        self._engine = engine
        self._cluster = cluster
        self._there: dict[str, frozenset[str]] = {}

    def of(self, image: Mapping[str, Any]) -> Layout:
        """Return how an image is run, from what the engine knows of it."""
        config = image["Config"] or {}
        if config.get("WorkingDir") != SDK_FOLDER:
            return layout_of(config)
        identity = str(image["Id"])
        if identity not in self._there:
            self._there[identity] = self._look(identity)
        return layout_of(config, self._there[identity])

    def _look(self, image: str) -> frozenset[str]:
        engine = self._engine
        labels = {CLUSTER_LABEL: f"{self._cluster}-look"}
        container = engine.create_container(image, command=["look"], labels=labels)["Id"]
        try:
            url = f"{engine.base_url}/v{engine.api_version}/containers/{container}/archive"
            paths = (*SDK_WRITES, f"{SDK_FOLDER}/{SESSIONS}")
            return frozenset(path for path in paths if engine.head(url, params={"path": path}, timeout=TIMEOUT).ok)
        finally:
            engine.remove_container(container, force=True)


def labels_of(settings: RuntimeSettings, run: Run) -> dict[str, str]:
    """Return the labels by which what an engine has of a bot is found."""
    return {CLUSTER_LABEL: settings.cluster, BOT_LABEL: str(run.bot), NAME_LABEL: run.name}


def environment_of(run: Run, layout: Layout, extension: str) -> dict[str, str]:
    """Return a bot's environment.

    Args:
        extension: folder in the container with what extends the bot SDK, from where Python takes it.
    """
    home = {"HOME": TMP} if layout.user == NO_USER else {}
    variables = {"PYTHONUNBUFFERED": "1", **home, **run.variables}
    if layout.python_path is not None:
        places = (extension, run.variables.get("PYTHONPATH", layout.python_path))
        variables["PYTHONPATH"] = ":".join(filter(None, places))
    return variables


def extension_text() -> bytes:
    """Return the module that extends the bot SDK."""
    return Path(sdk.__file__).read_bytes()


def sessions_archive(name: str) -> bytes:
    """Return an archive with a folder that everybody in the container may write to, and what extends the bot SDK."""
    buffer, text = io.BytesIO(), extension_text()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in ((name, 0o1777), (EXTENSION_FOLDER, 0o755)):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, mode
            archive.addfile(member)
        member = tarfile.TarInfo(f"{EXTENSION_FOLDER}/{EXTENSION}")
        member.size, member.mode = len(text), 0o644
        archive.addfile(member, io.BytesIO(text))
    return buffer.getvalue()
