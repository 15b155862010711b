"""``ape silverback login``, ``logout`` and ``whoami``."""

from __future__ import annotations

import sys
from datetime import datetime, timezone

import click
from ape.cli import verbosity_option

from ape_silverback.cli.shared.options import Number, format_option
from ape_silverback.cli.shared.output import show, show_facts, time_text
from ape_silverback.cli.shared.terminal import ask, echo, note, warn

profile_option = click.option(
    "-p",
    "--profile",
    metavar="PROFILE",
    help="Platform profile in ~/.silverback/profile.toml. Default: [auth.default] there.",
)


@click.command()
@profile_option
@click.option(
    "--no-browser",
    is_flag=True,
    help="Print a URL to open in any browser, and ask for the URL that it ends up at.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port of the redirect. Default: a free one where the provider allows it, else the registered one.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=Number(min=0, min_open=True),
    default=300,
    show_default=True,
    help="How long to wait for the browser.",
)
@verbosity_option()
def login(profile: str | None, no_browser: bool, port: int | None, timeout: float) -> None:
    """Log in to the platform with a browser.

    The login is shared with the `silverback` command.

    \b
    Example:
        ape silverback login
        ape silverback login --no-browser
    """
    from ape_silverback.cluster.auth.login import choose_auth, log_in, log_in_by_hand
    from ape_silverback.cluster.settings import ProfileSettings

    ProfileSettings.from_config_file()  # writes one with the platform's address for a new user
    auth = choose_auth(profile)
    done = log_in_by_hand(auth, _ask, port) if no_browser else log_in(auth, _open, timeout, port)
    echo(f"Logged in to {auth.host} as {done.user}.")


@click.command()
@profile_option
@verbosity_option()
def logout(profile: str | None) -> None:
    """Log out on this machine and at the provider.

    \b
    Example:
        ape silverback logout
    """
    from ape_silverback.cluster.auth.login import choose_auth, log_out

    auth = choose_auth(profile)
    done = log_out(auth)
    if done.warning:
        warn(f"you are logged out here, but {auth.host} may accept the tokens until they expire: {done.warning}")
    echo(f"Logged out of {auth.host}." if done.was_logged_in else f"You weren't logged in to {auth.host}.")


@click.command()
@profile_option
@format_option
@verbosity_option()
def whoami(profile: str | None, format_: str) -> None:
    """Show who is logged in and until when. The provider's signature is verified first.

    \b
    Example:
        ape silverback whoami
    """
    from ape_silverback.cli.shared.documents import UserDocument
    from ape_silverback.cluster.auth.login import choose_auth, who_am_i

    auth = choose_auth(profile)
    found = who_am_i(auth)
    document = UserDocument(
        user=found.user,
        auth=auth.name,
        host=auth.host,
        expires=datetime.fromtimestamp(found.expires, timezone.utc) if found.expires is not None else None,
        renewable=found.refresh_token is not None,
    )

    def text() -> None:
        end = time_text(document.expires) if document.expires else "unknown"
        show_facts(
            {
                "User": document.user,
                "Auth": document.auth,
                "Host": document.host,
                "Expires": f"{end}{', then renewed' if document.renewable else ''}",
            }
        )

    show(document.data(), format_, text)


def _open(address: str) -> None:
    """Open the browser in a thread, since some browsers block the one who opens them."""
    import threading
    import webbrowser

    note("Log in with the browser. If it doesn't open, go to:")
    note(address)
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _ask(address: str) -> str:
    """Ask for the address that the browser ends at. It holds a code, so it isn't echoed."""
    note("Open this address in a browser and log in:")
    note(address)
    note("")
    note("The browser then goes to a localhost address that it may not be able to load. Copy it from the address bar.")
    return ask("Paste it here (hidden)", hidden=True) if sys.stdin.isatty() else sys.stdin.readline()
