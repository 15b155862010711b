"""Pay out what is burned: tells the bank about each redemption of the stablecoin on this chain."""

import os

from ape.logging import logger
from ape.utils import ZERO_ADDRESS
from httpx import AsyncClient
from silverback import SilverbackBot
from token_on_chain import stablecoin

bot = SilverbackBot()
token = stablecoin()
bank = AsyncClient(base_url=os.environ["BANK_URI"], headers={"X-Internal-Key": os.environ["BANK_API_KEY"]})


@bot.on_(token.Transfer, receiver=ZERO_ADDRESS)
async def redeemed(log):
    """Credit the account of whoever burned."""
    answer = await bank.post(f"/redeem/{log.sender}", params={"amount": log.value})
    answer.raise_for_status()
    logger.info(f"{log.sender} redeemed {log.value}")
    return {"redeemed": log.value}
