"""What a bot's process runs: the bot SDK's own command line, whose event loop wakes up when a signal comes.

The SDK's handler of SIGTERM sets an event, which a sleeping loop notices only when something else wakes it: a bot with
nothing but a cron job would go on for up to a minute.
"""

from __future__ import annotations

import asyncio
import signal


class WakefulPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes event loops that any signal wakes up."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop. That it handles one signal by itself, here one that nobody sends, lets it notice all."""
        loop = super().new_event_loop()
        loop.add_signal_handler(signal.SIGUSR2, lambda: None)
        return loop


def main() -> None:
    """Run ``silverback`` with the arguments of this process."""
    from silverback._cli import cli

    asyncio.set_event_loop_policy(WakefulPolicy())
    cli()
