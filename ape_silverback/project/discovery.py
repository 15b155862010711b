"""Which project is Ape's active one, and where its bots are: the one place that knows where the bot SDK looks."""

from __future__ import annotations

from pathlib import Path


def project_name() -> str:
    """Give the name of Ape's active project."""
    from ape.utils.basemodel import ManagerAccessMixin

    name: str = ManagerAccessMixin.local_project.name
    return name


def project_folder() -> Path:
    """Give the folder of Ape's active project."""
    from ape.utils.basemodel import ManagerAccessMixin

    folder: Path = ManagerAccessMixin.local_project.path
    return folder


def module_name(module: str) -> str:
    """Give the name by which ``discover_bots`` knows a module that ``silverback run`` takes."""
    return module.partition(":")[0].removeprefix("bots.")


def discover_bots(folder: Path) -> dict[str, str]:
    """Find the project's bots where the bot SDK looks for them.

    Args:
        folder: the project's folder.

    Returns:
        Name of each bot → the path that says so. The name is what ``silverback run`` takes: modules and packages of
        ``bots/``, else ``bot`` for ``bot.py`` or ``bot/``.
    """

    def is_bot(path: Path) -> bool:
        is_module = path.suffix == ".py" and path.is_file()
        return path.stem.isidentifier() and not path.stem.startswith("_") and (is_module or is_package(path))

    def is_package(path: Path) -> bool:
        return path.suffix == "" and (path / "__init__.py").is_file()

    if (bots := folder / "bots").is_dir():
        found = {path.stem: f"bots/{path.name}" for path in sorted(bots.iterdir()) if is_bot(path)}
        if found:
            return found
    for path in (folder / "bot.py", folder / "bot"):
        if is_bot(path):
            return {"bot": path.name}
    return {}
