"""A payment is made once, whatever is lost on the way; and with tokens and accounts of all kinds."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ape_silverback.apepay.development import TOKEN
from ape_silverback.apepay.rpc import HttpNode
from ape_silverback.exceptions import StreamError
from ape_silverback.stream.pay import Payment, pay, settle
from ape_silverback.stream.pending import PaymentMemory
from ape_silverback.stream.quote import Quote, quote_extension, quote_stream
from ape_silverback.stream.transactions import Sender
from tests.cli.conftest import Run
from tests.cluster.server import Reply, Request, html, serving
from tests.stream.nodes import forward
from tests.stream.payments import STANDARD, Payments
from tests.stream.world import World

if TYPE_CHECKING:
    from ape.api import AccountAPI, ProviderAPI

DAY = 24 * 60 * 60


@pytest.fixture
def memory(home: object) -> PaymentMemory:
    return PaymentMemory.of(1337, "0x1", "0x2", str(uuid.uuid4()))


def losing(chain: str, *, sends: bool) -> Callable[[Request], Reply]:
    """A node that loses the answers to transactions, which it may have sent, and knows of none."""

    def behave(request: Request) -> Reply:
        method = request.json()["method"] if isinstance(request.json(), dict) else ""
        if method == "eth_sendRawTransaction":
            if sends:
                forward(chain, request)
            return html(502)
        if method == "eth_getTransactionReceipt":
            return forward(chain, request, lambda _, answer: {**answer, "result": None})
        return forward(chain, request)

    return behave


def quoted(payments: Payments) -> Quote:
    payments.send(payments.token, "approve", payments.manager, TOKEN)
    return quote_stream(
        payments.node, payments.owner, payments.manager, payments.token, STANDARD, uuid.uuid4(), amount="1"
    )


def lost(
    provider: ProviderAPI, payments: Payments, account: AccountAPI, memory: PaymentMemory, chain: str, *, sends: bool
) -> str:
    """Pay at a node that loses answers; return the hash that the error names."""
    quote = quoted(payments)
    with (
        serving(losing(chain, sends=sends)) as server,
        HttpNode(server.url) as node,
        pytest.raises(StreamError, match=r"isn't mined yet: transaction 0x[0-9a-f]{64}\. The same command") as lost,
    ):
        pay(Sender(provider, node, account, patience=0.5), quote, memory)
    pending = memory.read()
    assert pending is not None
    assert pending.transaction in str(lost.value)
    assert oct(memory.file.stat().st_mode & 0o777) == "0o600"
    return pending.transaction


def balance(payments: Payments) -> int:
    return int(payments.read(payments.token, "balanceOf", payments.owner, kind="TestToken"))


@pytest.mark.parametrize("sends", [True, False])
def test_a_payment_whose_end_wasnt_seen_is_found_or_sent_as_it_was_signed_and_never_made_twice(
    provider: ProviderAPI, priced: Payments, account: AccountAPI, memory: PaymentMemory, chain: str, sends: bool
) -> None:
    before = balance(priced)
    transaction = lost(provider, priced, account, memory, chain, sends=sends)
    told: list[str] = []
    for _ in range(2 if sends else 1):  # also when the process is killed before it forgets
        kept = memory.read()
        found = settle(Sender(provider, priced.node, account, told.append), memory, priced.manager, None)
        assert found is not None
        assert found.transaction == transaction
        assert balance(priced) == before - TOKEN
        assert memory.read() is None
        if kept:
            memory.write(kept)
    assert transaction in told[0]
    memory.forget()
    assert settle(Sender(provider, priced.node, account), memory, priced.manager, None) is None


def test_a_payment_that_was_replaced_or_failed_is_told_and_may_be_made_again(
    provider: ProviderAPI, priced: Payments, account: AccountAPI, memory: PaymentMemory, chain: str
) -> None:
    lost(provider, priced, account, memory, chain, sends=False)
    priced.send(priced.token, "approve", priced.manager, 0)  # another transaction with the same nonce
    told: list[str] = []
    assert settle(Sender(provider, priced.node, account, told.append), memory, priced.manager, None) is None
    assert "was replaced by another transaction of the account" in told[-1]
    assert memory.read() is None


def test_a_file_that_cant_be_read_lets_nothing_be_paid(
    provider: ProviderAPI, priced: Payments, account: AccountAPI, memory: PaymentMemory
) -> None:
    memory.file.parent.mkdir(parents=True)
    memory.file.write_text("{")
    with pytest.raises(StreamError, match="holds a payment that may be under way"):
        settle(Sender(provider, priced.node, account), memory, priced.manager, None)


def test_the_command_finds_the_payment_that_it_lost(run: Run, world: World, chain: str) -> None:
    payments, arguments = world.payments, ("pay", "add-time", "space/prod", "--amount", "1", "--yes")
    payments.send(payments.token, "DEBUG_mint", payments.owner, 5 * TOKEN)
    payments.send(payments.token, "approve", payments.manager, 5 * TOKEN)
    before = balance(payments)
    world.local = "    transaction_acceptance_timeout: 1\n"
    with serving(losing(chain, sends=True)) as server:
        world.node = server.url
        failed = run(*arguments, "--account", "TEST::0", code=1)
    assert "isn't mined yet: transaction 0x" in failed.stderr
    world.node = chain
    again = run(*arguments, "--account", "TEST::0")
    assert "this is the payment, and nothing more was paid" in again.stderr
    assert balance(payments) == before - TOKEN
    assert "Paid 1 TEST" in run(*arguments, "--account", "TEST::0").stderr


# Tokens and accounts of other kinds


def test_yes_signs_with_a_passphrase_of_the_environment_and_never_asks(run: Run, world: World, home: Path) -> None:
    from eth_account import Account

    payments, key = world.payments, "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
    keyfile = Account.encrypt(key, "open sesame", kdf="pbkdf2", iterations=2)
    (home / ".ape" / "accounts").mkdir(parents=True)
    (home / ".ape" / "accounts" / "payer.json").write_text(json.dumps(keyfile))
    payments.send(payments.token, "DEBUG_mint", payments.owner, TOKEN)
    arguments = ("pay", "add-time", "space/prod", "--amount", "1", "--account", "payer", "--yes")
    refused = run(*arguments, code=2)
    assert "--yes signs without asking: set APE_ACCOUNTS_payer_PASSPHRASE, or leave out --yes" in refused.stderr
    assert "Verified" not in refused.stderr
    assert "Sending" not in run(*arguments, code=1, APE_ACCOUNTS_payer_PASSPHRASE="wrong").stderr
    paid = run(*arguments, APE_ACCOUNTS_payer_PASSPHRASE="open sesame")
    assert "Paid 1 TEST in transaction 0x" in paid.stderr
    assert "Sign" not in paid.stdout + paid.stderr


def test_an_allowance_that_is_left_is_taken_back_first_where_the_token_wants_that(
    provider: ProviderAPI, priced: Payments, account: AccountAPI, memory: PaymentMemory
) -> None:
    from vyper import compile_code

    code = compile_code(Path(__file__).with_name("strict_token.vy").read_text(), output_formats=["bytecode"])
    priced.token = priced.checksummed(
        priced.transact({"from": priced.owner, "data": code["bytecode"]})["contractAddress"]
    )
    priced.send(priced.manager, "set_token_accepted", priced.token, True, sender=priced.accounts[1])
    selector = "0x40c10f19"  # mint(address,uint256)
    data = selector + priced.owner[2:].lower().rjust(64, "0") + f"{10**20:064x}"
    priced.transact({"from": priced.owner, "to": priced.token, "data": data})
    priced.send(priced.token, "approve", priced.manager, 5)
    quote = quote_stream(priced.node, priced.owner, priced.manager, priced.token, STANDARD, uuid.uuid4(), seconds=DAY)
    told: list[str] = []
    made = pay(Sender(provider, priced.node, account, told.append), quote, memory)
    assert [line.partition(",")[0] for line in told] == [
        "Sending the approval of 0 USDX",
        "Sending the approval of USDX",
        "Sending the payment",
    ]
    assert made.state.time_left > DAY - 60


WALLET = "0x602036038060206000376000600082600060006000355af160205760006000fd5b00"


def wallet_account(provider: ProviderAPI, payments: Payments, owner: AccountAPI) -> Any:
    """An account that is a contract, which does what its owner sends to it: it forwards calls, target first."""
    from ape.api import AccountAPI, ReceiptAPI, TransactionAPI
    from ape.types import AddressType

    runtime = WALLET[2:]
    init = f"0x60{len(runtime) // 2:02x}600c60003960{len(runtime) // 2:02x}6000f3{runtime}"
    made = payments.transact({"from": payments.owner, "data": init})
    where = payments.checksummed(made["contractAddress"])

    class WalletAccount(AccountAPI):
        wallet: str

        @property
        def address(self) -> AddressType:
            return self.wallet  # type: ignore[return-value]

        def sign_message(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("a wallet can't sign")

        def sign_transaction(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("a wallet can't sign")

        def call(self, txn: TransactionAPI, *_: Any, **__: Any) -> ReceiptAPI:
            data = bytes.fromhex(str(txn.receiver)[2:].rjust(64, "0")) + txn.data
            return owner.transfer(self.wallet, 0, data=data, gas_limit=2_000_000)

    return WalletAccount(wallet=where)


def test_a_contract_wallet_pays_and_extends(
    provider: ProviderAPI, priced: Payments, account: AccountAPI, memory: PaymentMemory
) -> None:
    wallet = wallet_account(provider, priced, account)
    priced.send(priced.token, "DEBUG_mint", str(wallet.address), 100 * TOKEN)
    cluster, sender = uuid.uuid4(), Sender(provider, priced.node, wallet)
    quote = quote_stream(priced.node, str(wallet.address), priced.manager, priced.token, STANDARD, cluster, seconds=DAY)
    made: Payment = pay(sender, quote, memory)
    assert made.state.stream.owner == wallet.address
    assert made.state.stream.products == (STANDARD.get_product_code(str(wallet.address), cluster),)
    more = quote_extension(priced.node, str(wallet.address), made.state, amount="1")
    assert pay(sender, more, memory).state.time_left > made.state.time_left
    assert memory.read() is None
