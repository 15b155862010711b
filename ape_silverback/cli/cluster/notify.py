"""``ape silverback cluster notify``: messages to people when something breaks."""

from __future__ import annotations

import click
from ape.cli import verbosity_option

from ape_silverback.cli.shared.group import LazyGroup
from ape_silverback.cli.shared.terminal import echo

HERE = "ape_silverback.cli.cluster.notify"

notify = LazyGroup(
    name="notify",
    help="Notifications when something breaks, as configured by `notify:` in the section.",
    commands_by_section={"Commands": {"test": (f"{HERE}:test", "Send a test message")}},
)


@click.command()
@verbosity_option()
def test() -> None:
    """Send a test message to every address that `silverback.notify.urls` names.

    The section names variables of the environment; each holds an address such as slack://… or mailto://….

    \b
    Example:
        SLACK_URL=slack://… ape silverback cluster notify test
    """
    from ape_silverback.connect import read_section_here
    from ape_silverback.server.notify import Message, NotifySettings, apprise_sender

    config = read_section_here().section.notify
    settings = NotifySettings(variables=config.urls, events=config.events)
    if not settings.variables:
        raise click.ClickException(
            "`silverback.notify.urls` in ape-config.yaml names no variable; add one that holds an address, such as "
            "SLACK_URL"
        )
    failed = []
    for name, url in settings.addresses().items():
        message = Message("ape-silverback: test message", "Messages of your cluster arrive here.")
        if not apprise_sender({name: url})(message):
            failed.append(name)
    if failed:
        raise click.ClickException(f"the service didn't take the message: {', '.join(failed)}")
    echo(f"Sent a message to {', '.join(settings.variables)}.")
