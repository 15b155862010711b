# pragma version 0.4.3
# pragma evm-version shanghai
"""
@title Validator with a fixed rate
@license Apache-2.0
@dev Prices every stream the same, whatever it pays for: for chains on which payments are rehearsed. A stream pays for
    one product; with none or several it gets no time, which the StreamManager refuses.
"""
from ethereum.ercs import IERC20

RATE: public(immutable(uint256))


@deploy
def __init__(rate: uint256):
    """
    @param rate What a second costs, in the smallest unit of the token.
    """
    assert rate > 0  # dev: a second must cost something
    RATE = rate


@view
@external
def validate(funder: address, token: IERC20, amount: uint256, products: DynArray[bytes32, 20]) -> uint256:
    """
    @notice Says how long a stream lives.
    @param funder Who pays.
    @param token What is paid with.
    @param amount How much is paid.
    @param products What is paid for.
    @return Seconds.
    """
    if len(products) != 1:
        return 0
    return amount // RATE
