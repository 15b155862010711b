"""Keeps the books of ApePay: counts the payment streams that are opened and what they hold, over restarts."""

import json
from pathlib import Path

from ape import chain
from ape.logging import logger
from ape.types import ContractLog
from apepay.package import MANIFEST
from silverback import SilverbackBot

REPORT_EVERY = 5
"""Blocks between two summaries."""

bot = SilverbackBot()
books = Path(".silverback-sessions") / bot.identifier.name / "books.json"


@bot.on_startup()
def open_books(_startup_state):
    """Take up the books where the last run left them."""
    bot.state.books = json.loads(books.read_text()) if books.exists() else {}
    logger.info(f"Books opened with {len(bot.state.books)} streams")


# The event of any StreamManager: no address is named.
@bot.on_(MANIFEST.StreamManager.StreamCreated)
def book_stream(log: ContractLog):
    """Enter a stream that was opened."""
    name = f"{log.contract_address}/{log.stream_id}"
    bot.state.books[name] = {"owner": log.owner, "token": log.token, "funded": log.funded_amount}
    logger.success(f"Stream {name} opened by {log.owner} with {log.funded_amount / 10**18:g} tokens")
    return {"funded": log.funded_amount}


@bot.on_(chain.blocks)
def report(block):
    """Log from time to time what the books hold, and write them down."""
    if block.number % REPORT_EVERY == 0:
        logger.info(f"Block {block.number}: {len(bot.state.books)} streams in the books")
        write_books()


@bot.on_shutdown()
def close_books():
    """Write the books down before the process ends."""
    write_books()
    logger.info("Books closed")


def write_books() -> None:
    """Replace the file as a whole, so that a crash leaves the old one or the new one."""
    books.parent.mkdir(parents=True, exist_ok=True)
    draft = books.with_suffix(".new")
    draft.write_text(json.dumps(bot.state.books))
    draft.replace(books)
