"""Freeze accounts that receive more than the law lets pass without a question."""

import os

from ape.logging import logger
from silverback import SilverbackBot
from token_on_chain import stablecoin

bot = SilverbackBot()
token = stablecoin()
LIMIT = int(os.environ.get("COMPLIANCE_LIMIT", 10_000 * 10**6))


@bot.on_(token.Transfer)
def check(log):
    """Freeze the receiver of a large transfer, once."""
    if log.value <= LIMIT or token.frozen(log.receiver):
        return
    token.freeze(log.receiver, sender=bot.signer)
    logger.warning(f"froze {log.receiver}, who received {log.value}")
