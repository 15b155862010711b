"""Options that commands share, and the connections that they choose."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from ape.cli import verbosity_option

from ape_silverback import connect
from ape_silverback.cli.shared.completion import complete_bots, complete_clusters, complete_profiles
from ape_silverback.cli.shared.terminal import note, warn
from ape_silverback.durations import read_span

Function = TypeVar("Function", bound=Callable[..., Any])

TEXT, JSON, YAML = "text", "json", "yaml"

MOST = 1_000_000_000
"""The largest number that an option takes."""


def together(*options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Return one decorator for several."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


profile_option = click.option(
    "-p",
    "--profile",
    metavar="PROFILE",
    help="Profile in ~/.silverback/profile.toml.",
    shell_complete=complete_profiles,
)

cluster_options = together(
    profile_option,
    click.option(
        "-c",
        "--cluster",
        metavar="WORKSPACE/NAME",
        help="Cluster of the platform.",
        shell_complete=complete_clusters,
    ),
    verbosity_option(),
)
"""The options of every command that talks to a cluster."""

platform_options = together(profile_option, verbosity_option())
"""The options of every command that talks to the platform."""

connected = partial(connect.connected, warn=warn)
platform = partial(connect.platform, warn=warn)

bot_names = click.argument("names", metavar="[BOT]...", nargs=-1, shell_complete=complete_bots)
"""Bots by name or glob."""

format_option = click.option(
    "--format",
    "format_",
    type=click.Choice([TEXT, JSON, YAML], case_sensitive=False),
    default=TEXT,
    show_default=True,
    help="Output format; docs/userguides/output.md describes JSON and YAML.",
)

allow_option = click.option(
    "--allow",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    multiple=True,
    help="Run bots as processes only from projects in FOLDER; repeatable, remembered. / allows any.",
)

wide_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["wide"]),
    help="wide: every column of the bots, in full, with restarts, age of the heartbeat and lag.",
)

yes_option = click.option("-y", "--yes", is_flag=True, help="Don't ask for confirmation.")

all_option = click.option("--all", "every", is_flag=True, help="Select all.")


def _commands(_ctx: click.Context, _param: click.Parameter, allowed: bool) -> Any:
    from ape_silverback.config.env_file import Commands

    return Commands(note) if allowed else None


allow_commands_option = click.option(
    "--allow-commands",
    "commands",
    is_flag=True,
    callback=_commands,
    help="Run commands in env files, written as NAME=$(command). Each is shown before it runs.",
)
"""Passes the command what runs them, or None."""


def _iso(text: str) -> datetime:
    """Read a time in ISO 8601, local without a zone.

    Raises:
        ValueError, OverflowError: it isn't a time.
    """
    return datetime.fromisoformat(re.sub(r"Z$", "+00:00", text)).astimezone()


class Number(click.FloatRange):
    """A number in a range, and one to reckon with: neither ``nan`` nor more seconds than a process can wait for."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number.

        Raises:
            click.BadParameter: it isn't one, or out of range.
        """
        number: float = super().convert(value, param, ctx)
        if not number <= MOST:
            self.fail(f"{number:g} isn't a number up to {MOST:,}.", param, ctx)
        return number


class Span(click.ParamType):
    """A time span such as ``10m``, ``2h`` or ``3 days``, or until a time in ISO 8601; converts to seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds.

        Raises:
            click.BadParameter: it isn't a time span, or not above zero.
        """
        if isinstance(value, int):
            return value
        text = str(value).strip()
        try:
            span = read_span(text)
            span = _iso(text) - datetime.now(timezone.utc) if span is None else span
        except (ValueError, OverflowError):
            self.fail(f"'{text}' isn't a time span; use '2h', '30 days' or '2027-01-31T12:00'", param, ctx)
        if span <= timedelta():
            self.fail(f"'{text}' isn't in the future", param, ctx)
        return int(span.total_seconds())


class Size(click.ParamType):
    """A number of bytes such as ``500k``, ``50m`` or ``1g``, as Docker writes it: powers of 1024."""

    name = "size"

    def __init__(self, least: int) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes.

        Raises:
            click.BadParameter: it isn't a size, or too small.
        """
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,12})\s*([kmg]?)(?:i?b)?", str(value).strip().lower(), re.ASCII)
        if found is None:
            self.fail(f"'{value}' isn't a size; use '500k', '50m' or '1g'", param, ctx)
        size: int = int(found[1]) * 1024 ** " kmg".index(found[2] or " ")
        if size < self.least:
            self.fail(f"'{value}' is less than {self.least // 1024}k", param, ctx)
        return size


log_size_option = click.option(
    "--log-max-size",
    "log_size",
    metavar="SIZE",
    type=Size(least=1024 * 1024),
    help="Maximum size of a bot's log, such as 200m. Default: the last one used, initially 50m.",
)


class Moment(click.ParamType):
    """A time: ``10m``, ``2h``, ``3 days`` or ``1h 30m`` ago, or one in ISO 8601 (local without a zone)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time.

        Raises:
            click.BadParameter: it isn't a time.
        """
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            if (span := read_span(text)) is not None:
                return datetime.now(timezone.utc) - span
        except OverflowError:
            self.fail(f"'{text}' is too long ago", param, ctx)
        try:
            return _iso(text)
        except (ValueError, OverflowError):
            self.fail(f"'{text}' isn't a time; use '10m', '2h', '3 days' or '2026-01-31T12:00'", param, ctx)
