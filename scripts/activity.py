"""Makes something happen on a development chain: deploys ApePay and opens a payment stream.

Run it with ``ape run activity --network ethereum:local:http://127.0.0.1:8545``: the bot ``streams`` then has something
to book.
"""

from ape import accounts
from apepay.package import MANIFEST

MONTH = 30 * 24 * 60 * 60
AMOUNT = 10 * 10**18


def main() -> None:
    """Deploy a token, a validator and a StreamManager, and open one stream."""
    owner = accounts.test_accounts[0]
    # The chain mines on an interval; Ape's default for local networks takes a transaction as done when it is sent.
    mined = {"required_confirmations": 1}
    token = owner.deploy(MANIFEST.TestToken, **mined)
    validator = owner.deploy(MANIFEST.TestValidator, **mined)
    manager = owner.deploy(MANIFEST.StreamManager, owner, 60, [token], [validator], **mined)
    token.DEBUG_mint(owner, AMOUNT, sender=owner, **mined)
    token.approve(manager, AMOUNT, sender=owner, **mined)
    # The test validator reads the product as the price of a second.
    product = (AMOUNT // MONTH).to_bytes(32, "big")
    manager.create_stream(token, AMOUNT, [product], sender=owner, **mined)
    print(f"Opened a stream at {manager.address}: {manager.num_streams()} in all")
