"""The project: its name, its folder, and where its bots are. The one place that knows where the bot SDK looks.

The cluster server uses this too, so nothing here loads more than the standard library until Ape is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_MODULE = re.compile(r"(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)(?::(?P<attribute>[^\W\d]\w*))?")
_PROJECT_IMAGE = re.compile(rf"project:(?P<folder>/.*)#(?P<module>{_MODULE.pattern})", re.DOTALL)


@dataclass(frozen=True)
class BotModule:
    """A module that holds a bot.

    Attributes:
        name: dotted name by which it is imported in the project's folder, as ``bots.prices``.
        attribute: name of the bot in it.
        path: its file, or the folder of its package, relative to the project's folder.
        argument: what ``silverback run`` takes to run the bot.
    """

    name: str
    attribute: str
    path: str
    argument: str


def project_name() -> str:
    """Return the name of Ape's active project."""
    from ape.utils.basemodel import ManagerAccessMixin

    name: str = ManagerAccessMixin.local_project.name
    return name


def project_folder() -> Path:
    """Return the folder of Ape's active project."""
    from ape.utils.basemodel import ManagerAccessMixin

    folder: Path = ManagerAccessMixin.local_project.path
    return folder


def find_bot_module(folder: Path, module: str) -> BotModule | None:
    """Find a bot's module where ``silverback run`` imports it from; None if it doesn't exist.

    With a folder ``bots/``, ``NAME`` is a module or package in it, except ``bot``, which is first looked for in the
    project's folder. Everything else is imported as it is written.

    Args:
        folder: the project's folder.
        module: as ``silverback run`` takes it: ``NAME`` or ``bots.NAME``, and ``:ATTRIBUTE`` when that isn't ``bot``.
    """
    match = _MODULE.fullmatch(module)
    if not match:
        return None
    written, attribute = match["name"], match["attribute"] or "bot"
    names = [written]
    if (folder / "bots").is_dir() and not written.startswith("bots."):
        # `silverback run bot` doesn't look into bots/, but its full name works.
        names = ["bot", "bots.bot"] if written == "bot" else [f"bots.{written}"]
    for name in names:
        if path := _module_path(folder, name):
            argument = name + (f":{match['attribute']}" if match["attribute"] else "")
            return BotModule(name, attribute, path, argument if name == "bots.bot" else module)
    return None


def discover_bots(folder: Path) -> dict[str, str]:
    """Find the project's bots where the bot SDK looks for them.

    Args:
        folder: the project's folder.

    Returns:
        Name of each bot → the path of its module. The name is what ``silverback run`` takes: modules and packages of
        ``bots/``, else ``bot`` for ``bot.py`` or ``bot/``.
    """
    bots = folder / "bots"
    stems = sorted({path.stem for path in bots.iterdir()}) if bots.is_dir() else []
    names = [stem for stem in stems if stem.isidentifier() and not stem.startswith("_")]
    found = {name: path for name in names if (path := _module_path(folder, f"bots.{name}"))}
    if not found and (path := _module_path(folder, "bot")):
        found = {"bot": path}
    return found


def project_image(folder: Path, module: str) -> str:
    """Return the image that stands for a bot in a folder of this machine: ``project:FOLDER#MODULE``."""
    return f"project:{folder}#{module}"


def split_project_image(image: str) -> tuple[Path, str] | None:
    """Return the folder and the module of ``project:FOLDER#MODULE``; None for another image."""
    match = _PROJECT_IMAGE.fullmatch(image)
    return (Path(match["folder"]), match["module"]) if match else None


def _module_path(folder: Path, name: str) -> str | None:
    """Return the file or package of a module, relative to the folder; None when it isn't there."""
    path = Path(*name.split("."))
    file = path.with_name(f"{path.name}.py")
    if (folder / path / "__init__.py").is_file():  # as Python does, a package before a module
        return path.as_posix()
    return file.as_posix() if (folder / file).is_file() else None
