"""The one way to the terminal: everything that commands print or ask goes through here.

Text of servers, bots, chains and files isn't ours, and a terminal obeys what it is sent: a name can clear the screen, a
reason can look like another line, a log can set the window's title. So control characters are shown, not sent. Our own
colours are told from others by a mark that is drawn anew in each process.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from json.encoder import encode_basestring, encode_basestring_ascii
from traceback import walk_tb
from typing import Any

import click

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

LONGEST_TEXT = 20_000
"""Most characters of one error, warning, question or fact that are shown: some hold texts or names of a server."""

# C0, DEL and C1; soft hyphen; marks and isolates that change the direction of text; line and paragraph separators;
# invisible characters but the joiners of emoji and scripts; tags; halves of a surrogate pair.
_UNSAFE_CLASS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff"
)
_UNSAFE = re.compile(f"[{_UNSAFE_CLASS}]")
_MARK = str(random.SystemRandom().randrange(10**11, 10**12))
_STYLE = r"\x1b\[(?P<style>[0-9;]*)m"
_OURS = re.compile(rf"\x1b\[([0-9;]*);{_MARK}m")
_IN_TEXT = re.compile(rf"\r\n|{_STYLE}|[{_UNSAFE_CLASS}]")
_IN_LINE = re.compile(rf"{_STYLE}|[\n\t{_UNSAFE_CLASS}]")
# Colours, bold, dim, italic and underlined: what loggers use. Not what hides text, such as 8.
_COLOUR = r"(?:0?[0-4]|2[2-4]|[34][0-79]|9[0-7]|10[0-7]|[34]8;5;\d{1,3}|[34]8;2(?:;\d{1,3}){3})"
_COLOURS = re.compile(rf"(?:{_COLOUR}(?:;{_COLOUR})*)?")


def style(text: str, **styles: Any) -> str:
    """Return a text with a style of ``click.style`` that is known as ours."""
    before = click.style("", reset=False, **styles)
    return f"{before.replace('m', f';{_MARK}m')}{text}{_END}" if before else text


_END = f"\x1b[0;{_MARK}m"


def safe_text(text: str) -> str:
    """Return a text whose control characters are shown rather than sent. It may have several lines; tabs stay."""
    return _IN_TEXT.sub(_shown, text) if _UNSAFE.search(text) else text


def safe_line(text: str) -> str:
    """Return a text as one line, with control characters, line ends and tabs shown rather than sent."""
    return _IN_LINE.sub(_shown, text)


def safe_colours(text: str) -> str:
    """Return a text of a logger as ours: as ``safe_text``, but the colours in it stay and end with each line."""
    if "\x1b" not in text:
        return safe_text(text)
    lines = text.split("\n")
    for number, line in enumerate(lines):
        marked = re.sub(_STYLE, lambda found: _marked(found["style"]), line)
        lines[number] = f"{marked}{_END}" if marked != line else line
    return safe_text("\n".join(lines))


def _marked(codes: str) -> str:
    return f"\x1b[{codes or '0'};{_MARK}m" if _COLOURS.fullmatch(codes) else ""


def _shown(found: re.Match[str]) -> str:
    if (codes := found["style"]) is not None:
        return found[0] if codes.endswith(f";{_MARK}") else ""  # a style that isn't ours is left out
    if found[0] == "\r\n":
        return "\n"
    return found[0].encode("unicode_escape").decode()


def _revealed(text: str) -> str:
    """Return a safe text as a terminal takes it: without the mark."""
    return _OURS.sub("\x1b[\\1m", text)


def plain(text: str) -> str:
    """Return a text without styles."""
    return re.sub(_STYLE, "", text)


def safe_json(data: Any, indent: int | None = None) -> str:
    """Return data as JSON; what a terminal would obey is escaped, and all but ASCII where stdout isn't Unicode."""
    if isinstance(data, str):
        text = encode_basestring(data) if _takes_unicode() else encode_basestring_ascii(data)
    else:
        text = json.dumps(data, indent=indent, ensure_ascii=not _takes_unicode())
    return text if text.isprintable() else _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def safe_yaml(data: Any) -> str:
    """Return data as YAML, escaped likewise."""
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=_takes_unicode())
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=False) if _UNSAFE.search(text) else text


def _takes_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")


def cut(text: str, most: int = LONGEST_TEXT) -> str:
    """Return a text, or its beginning if it is longer. Characters of styles count; a style ends where it is cut."""
    if len(text) <= most:
        return text
    return f"{text[:most]}{_END if _MARK in text[:most] else ''}… (cut)"


def echo(text: str = "", *, err: bool = False) -> None:
    """Print one line. A line end in it is shown, since what follows would look like a line of ours."""
    _write(safe_line(text), err)


def echo_text(text: str, *, err: bool = False) -> None:
    """Print several lines of one text, such as a document."""
    _write(safe_text(text), err)


def echo_lines(lines: Sequence[str]) -> None:
    """Print many lines that are safe already, in one write."""
    if lines:
        _write("\n".join(lines), err=False)


def echo_indented(text: str, by: int, *, err: bool = False) -> None:
    """Print a text that a bot wrote, indented, with the colours of its logger."""
    for line in safe_colours(text).split("\n"):
        echo(" " * by + line, err=err)


def note(text: str) -> None:
    """Print something that isn't data, on stderr. Lines after the first are indented."""
    _write(_indented(safe_text(cut(text))), err=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    note(style(f"WARNING: {text}", fg="yellow"))


def complain(text: str) -> None:
    """Print what went wrong with one of many things, on stderr."""
    body = text.lstrip("\n")
    note(text[: len(text) - len(body)] + style(body, fg="red"))


def error_text(text: str) -> str:
    """Return the text of an error as click may print it: lines after the first are indented."""
    return _revealed(_indented(safe_text(cut(text))))


def _indented(text: str) -> str:
    body = text.lstrip("\n")
    return text[: len(text) - len(body)] + re.sub(r"\n(?=[^\n])", "\n  ", body)


def _write(text: str, err: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    try:
        click.echo(_revealed(text), err=err)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # the reader has seen enough, which click ends quietly
        _discard(stream)
        if not err:
            raise click.ClickException(f"can't write to stdout: {os.strerror(error.errno or errno.EIO)}") from None


def system_error_text(error: OSError) -> str:
    """Return what the system refused, and where, of an error that nothing else has explained."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    if frames and frames[-1].f_code is click.echo.__code__:  # click itself prints help
        _discard(sys.stdout)
        return f"can't write to stdout: {reason}"
    return f"{error.filename}: {reason}" if error.filename else reason


def _discard(stream: Any) -> None:
    """Redirect a stream that can't be written to, so that the interpreter's last flush doesn't fail too."""
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


@contextmanager
def answered() -> Iterator[None]:
    """Ask something before anything is changed.

    Raises:
        click.exceptions.Exit: Ctrl-C, or the input ended.
    """
    try:
        yield
    except (click.Abort, SystemExit):  # Ape makes an exit of an interrupt
        note("\nNothing was changed.")
        raise click.exceptions.Exit(INTERRUPTED) from None


def confirm(question: str, yes: bool) -> None:
    """Ask before something is done, unless ``yes``; return only if the answer is yes.

    Raises:
        click.UsageError: stdin isn't a terminal.
        click.exceptions.Exit: the answer was no, or none.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} stdin isn't a terminal; pass --yes.")
    with answered():
        answer = click.confirm(_plain_line(question), err=True)
    if not answer:
        note("Nothing was changed.")
        raise click.exceptions.Exit(1)


def agreed(question: str) -> bool:
    """Ask the terminal something that changes nothing if the answer is no; none, as after Ctrl-C, is no."""
    try:
        return click.confirm(_plain_line(question), err=True)
    except (click.Abort, SystemExit):  # Ape makes an exit of an interrupt
        note("")
        return False


def ask(text: str, *, hidden: bool = False, default: str | None = None) -> str:
    """Ask the terminal for a text. Callers look first whether stdin is one."""
    answer: str = click.prompt(_plain_line(text), hide_input=hidden, default=default, show_default=False, err=True)
    return answer


def _plain_line(text: str) -> str:
    return plain(safe_line(cut(text)))
