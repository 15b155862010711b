"""Groups that import a command only when it is used, and turn errors into messages."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click
from click.utils import make_default_short_help

from ape_silverback.suggestions import did_you_mean

COLLECT_EVERY = 200_000
"""Objects that are made before the garbage collector looks at them."""


class LazyGroup(click.Group):
    """A group whose commands are named, not imported.

    Args:
        commands_by_section: heading in ``--help`` → name of a command → where it is, as ``module:attribute``, and its
            line in ``--help``, which so imports no command.
        version_of: distribution whose version ``--version`` prints; None for no option.
    """

    def __init__(
        self,
        *args: Any,
        commands_by_section: Mapping[str, Mapping[str, tuple[str, str]]],
        version_of: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.commands_by_section = commands_by_section
        if version_of:
            self.params.append(_version_option(version_of))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands in their order."""
        return [name for section in self.commands_by_section.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command.

        Raises:
            click.ClickException: its module, or something that it needs, can't be imported.
        """
        for section in self.commands_by_section.values():
            if found := section.get(cmd_name):
                place, short_help = found
                module, _, attribute = place.partition(":")
                try:
                    command: click.Command = getattr(import_module(module), attribute)
                except ImportError as error:
                    raise click.ClickException(_not_loaded(cmd_name, error)) from error
                command.short_help = short_help
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; an error suggests the nearest of this group.

        Ape would suggest commands of its root group here.
        """
        name = args[0]
        if not ctx.resilient_parsing and name not in self.list_commands(ctx) and not name.startswith("-"):
            hint = did_you_mean(name, self.list_commands(ctx), "commands")
            ctx.fail(f"'{ctx.command_path}' has no command '{name}'; {hint}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; with ``--help`` and without any, help is printed."""
        with _system_errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ape's errors become click's: stderr, exit 1, no project loaded to print them."""
        if ctx.parent is not None and isinstance(ctx.parent.command, LazyGroup):
            return super().invoke(ctx)
        _spare_collector()
        _spare_highlighter()
        from ape.exceptions import ApeException

        _prepare_streams()
        if os.environ.get("NO_COLOR"):  # no-color.org: any text turns colours off
            ctx.color = False
        try:
            with _system_errors():
                return super().invoke(ctx)
        except ApeException as error:
            raise click.ClickException(_error_text(str(error) or type(error).__name__)) from error
        except ImportError as error:
            raise click.ClickException(_error_text(_not_loaded(ctx.invoked_subcommand or "it", error))) from error
        except click.ClickException as error:
            error.message = _error_text(error.message) if error.message else error.message
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands under their headings."""
        for heading, section in self.commands_by_section.items():
            width = formatter.width - 6 - max(map(len, section))
            rows = [(name, make_default_short_help(text, width)) for name, (_, text) in section.items()]
            with formatter.section(heading):
                formatter.write_dl(rows)


def _spare_collector() -> None:
    """Let the garbage collector rest: nearly all that a command makes are modules, which stay.

    Going through them again and again, and once more at the end, takes a fifth of a short command's time.
    """
    gc.set_threshold(COLLECT_EVERY)
    atexit.register(gc.freeze)


def _spare_highlighter() -> None:
    """Let httpx do without its own command line, which brings a syntax highlighter: a tenth of a short command's time.

    It is an extra of httpx, which asks for it with an import that may fail; a module that is None is one that fails.
    """
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]


def _prepare_streams() -> None:
    """Make the standard streams fit for commands: one that is closed is empty, and no character is too much for one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started the command
            setattr(sys, name, open(os.devnull, mode, encoding="utf8"))  # noqa: PTH123, SIM115 - as long as the process
        elif mode == "w" and isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _error_text(text: str) -> str:
    from ape_silverback.cli.shared.terminal import error_text  # which no help needs

    return error_text(text)


@contextmanager
def _system_errors() -> Iterator[None]:
    """Turn errors of the system, such as that of a full disk under stdout, into click's."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # the reader has seen enough, which click ends quietly
        from ape_silverback.cli.shared.terminal import system_error_text

        raise click.ClickException(system_error_text(error)) from error


def _not_loaded(name: str, error: ImportError) -> str:
    return f"'{name}' can't be loaded: {error}. Reinstall it: pip install --upgrade --force-reinstall ape-silverback"


def _version_option(distribution: str) -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001 - click's signature
        if value and not ctx.resilient_parsing:
            from importlib.metadata import version

            from ape_silverback.cli.shared.terminal import echo

            echo(version(distribution))
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=show, help="Show the version and exit."
    )
