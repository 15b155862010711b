"""Watches blocks: how full they are, and when the base fee jumps."""

from ape import chain
from ape.logging import logger
from silverback import SilverbackBot, StateSnapshot

JUMP = 0.10
"""Share by which the base fee has to change from one block to the next to be worth a warning."""

bot = SilverbackBot()


@bot.on_startup()
def begin(startup_state: StateSnapshot):
    """Log where the last run ended, and begin to remember."""
    logger.info(f"Last block processed before this run: {startup_state.last_block_processed}")
    bot.state.last_fee = None


@bot.on_(chain.blocks)
def watch_block(block):  # without a type: the SDK would cut the block down to the named class
    """Log each block; what is returned is recorded as metrics."""
    fee = block.base_fee
    fullness = block.gas_used / block.gas_limit
    logger.info(f"Block {block.number}: {fullness:.1%} full, base fee {fee / 10**9:.3f} gwei")
    if bot.state.last_fee and abs(fee - bot.state.last_fee) > JUMP * bot.state.last_fee:
        logger.warning(f"Base fee moved by {fee / bot.state.last_fee - 1:+.0%} at block {block.number}")
    bot.state.last_fee = fee
    return {"gas_used": block.gas_used, "base_fee": fee}
