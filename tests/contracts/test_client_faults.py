"""A chain that stops, reorganizes, forgets a transaction, doubles its price, answers garbage; a client that is restarted at any of it.

The clock is the test's own; nothing waits. What must hold: each thing that was sent is included exactly once, and its end is told truly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.chain import ChainClient
from contracts.client import ChainSettings, connect
from contracts.devnet.genesis import dev_key
from contracts.fees import GWEI
from contracts.nonce import MISSING_S, MOST_PENDING, RAISE_AFTER_BLOCKS, RAISE_AFTER_S
from contracts.pending import Book
from contracts.signing import signer_of
from protocol.chain import ChainPending, ChainRefused, ChainUnreachable, Settled, WrongChain
from tests.contracts.ground import EvmGround

CERTIFICATE = b"c" * 32


def book_of(kept: Path) -> Book:
    (file,) = kept.glob("*.json")
    return msgspec.json.decode(file.read_bytes(), type=Book)


def blocks(ground: EvmGround, count: int, each_s: int = 3) -> None:
    for _ in range(count):
        ground.advance(each_s)


@pytest.fixture
def ground() -> EvmGround:
    """Blocks are made when the test says so."""
    return EvmGround(auto_mine=False)


def test_ten_minutes_without_a_block_raise_no_fee_and_lose_nothing(ground: EvmGround, tmp_path: Path) -> None:
    anna = ground.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    for _ in range(20):
        ground.now_s += 30
        assert anna.reconcile() == ()
    assert [each.hashes for each in book_of(tmp_path).transactions] == [(sent.hash,)]
    with pytest.raises(ChainPending):
        anna.wait(sent, 600)
    blocks(ground, 1)
    assert anna.wait(sent, 1).hash == sent.hash


def test_ten_minutes_without_an_answer_lose_nothing(ground: EvmGround, tmp_path: Path) -> None:
    anna = ground.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    ground.cut(True)
    with pytest.raises(ChainUnreachable):
        anna.wait(sent, 600)
    ground.cut(False)
    blocks(ground, 1)
    assert anna.wait(sent, 1).done


@pytest.mark.parametrize("arrives", [True, False])
def test_an_offer_that_got_no_answer_is_not_sent_under_another_nonce(ground: EvmGround, tmp_path: Path, arrives: bool) -> None:
    """The connection breaks in the middle of eth_sendRawTransaction, after or before the node took it."""
    through = ground.transport

    class Breaking:
        url = through.url
        broken = True

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            if method == "eth_sendRawTransaction" and self.broken:
                if arrives:
                    through(method, parameters)
                raise ChainUnreachable("connection reset")
            return through(method, parameters)

    transport = Breaking()
    anna = over(transport, ground, "anna", tmp_path)
    sent = anna.register("anna")
    assert anna.register("anna") == sent
    transport.broken = False
    anna.reconcile()
    blocks(ground, 1)
    assert anna.wait(sent, 1).hash == sent.hash
    assert ground.devnet.nonce(bytes.fromhex(anna.account[2:])) == 1


def over(transport: Any, ground: EvmGround, name: str, kept: Path | None, *, confirmations: int = 1, **more: Any) -> ChainClient:
    return connect(
        ChainSettings(chain_id=ground.chain_id, urls=(), confirmations=confirmations, **more),
        signer_of(dev_key(name)),
        kept,
        now=lambda: ground.now_s,
        sleep=lambda seconds: ground.advance(int(seconds)),
        transports=[transport],
    )


def test_a_transaction_that_the_node_forgot_is_offered_again_the_same_bytes(ground: EvmGround, tmp_path: Path) -> None:
    anna = ground.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    assert ground.devnet.drop(bytes.fromhex(sent.hash[2:]))
    blocks(ground, 1)
    assert not anna.agent(anna.account).registered
    assert anna.reconcile() == ()
    blocks(ground, 1)
    assert anna.wait(sent, 1).hash == sent.hash


def full_block(ground: EvmGround) -> None:
    """A block in which nothing else has room: the next one's base fee is an eighth higher. Its gas goes into calldata, which costs no time."""
    signer = signer_of(dev_key("bert"))
    limit = ground.devnet.head.gas_limit
    size = (limit - 21_000 - 50_000) // 16  # 16 gas a byte (EIP-2028); 50,000 are left, and no transaction of ours fits into that
    raw = signer.sign_transaction(
        {
            "chainId": ground.chain_id,
            "nonce": ground.devnet.nonce(bytes.fromhex(signer.address[2:])),
            "to": signer.address,
            "value": 0,
            "data": b"\xff" * size,
            "gas": limit,
            "maxFeePerGas": 10_000 * GWEI,
            "maxPriorityFeePerGas": 100 * GWEI,
        }
    ).raw_transaction
    ground.devnet.submit(raw)
    blocks(ground, 1)


def test_what_is_stuck_while_blocks_come_is_replaced_at_a_higher_fee(ground: EvmGround, tmp_path: Path) -> None:
    """The price of gas more than doubles past what was offered, in blocks that are full."""
    anna = ground.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    (before,) = book_of(tmp_path).transactions
    full = 0
    while ground.devnet.base_fee() <= before.fees.most:
        full_block(ground)
        full += 1
    assert full >= RAISE_AFTER_BLOCKS
    blocks(ground, 1)
    assert not anna.agent(anna.account).registered  # what it offered is no longer enough
    full_block(ground)
    ground.now_s += RAISE_AFTER_S
    assert anna.reconcile() == ()
    (after,) = book_of(tmp_path).transactions
    assert (after.nonce, len(after.hashes)) == (before.nonce, 2)
    blocks(ground, 1)
    ended = anna.wait(sent, 1)
    assert ended.done
    assert ended.hash == after.hashes[1]
    assert anna.pending() == ()


def test_no_fee_is_above_the_ceiling(ground: EvmGround, tmp_path: Path) -> None:
    """It waits until the price has fallen, and is still the same transaction."""
    anna = over(ground.transport, ground, "anna", tmp_path, most_per_gas=2 * GWEI)
    sent = anna.register("anna")
    while ground.devnet.base_fee() <= 2 * GWEI:
        full_block(ground)
    for _ in range(2):
        full_block(ground)
        ground.now_s += RAISE_AFTER_S
        assert anna.reconcile() == ()
    (kept,) = book_of(tmp_path).transactions
    assert (kept.fees.most, kept.hashes) == (2 * GWEI, (sent.hash,))
    blocks(ground, 6)
    assert anna.wait(sent, 1).hash == sent.hash


def test_a_reorganization_takes_it_out_and_it_comes_in_again(ground: EvmGround, tmp_path: Path) -> None:
    anna = ground.client("anna", kept=tmp_path, confirmations=3)
    blocks(ground, 1)
    sent = anna.register("anna")
    blocks(ground, 2)
    assert anna.agent(anna.account).registered
    assert anna.reconcile() == ()  # two deep is not three
    ground.devnet.go_back(1)
    blocks(ground, 2)
    assert not anna.agent(anna.account).registered
    assert anna.reconcile() == ()
    blocks(ground, 3)
    ended = anna.wait(sent, 1)
    assert ended.done
    assert anna.agent(anna.account).registered


def test_a_restart_at_any_moment_sees_everything_through(ground: EvmGround, tmp_path: Path) -> None:
    sent = ground.client("anna", kept=tmp_path).register("anna")
    assert ground.client("anna", kept=tmp_path).register("anna") == sent  # the next process does not send it again
    assert ground.client("anna", kept=tmp_path).pending() == (sent,)
    blocks(ground, 1)
    assert ground.client("anna", kept=tmp_path).wait(sent, 1).done
    assert ground.client("anna", kept=tmp_path).pending() == ()
    assert ground.devnet.nonce(bytes.fromhex(ground.account("anna")[2:])) == 1


def test_it_is_on_disk_before_it_is_offered(ground: EvmGround, tmp_path: Path) -> None:
    through, seen = ground.transport, []

    class Looking:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            if method == "eth_sendRawTransaction":
                seen.append([each.raw for each in book_of(tmp_path).transactions] == [parameters[0]])
            return through(method, parameters)

    over(Looking(), ground, "anna", tmp_path).register("anna")
    assert seen == [True]


def test_two_processes_with_one_wallet_never_use_a_nonce_twice(ground: EvmGround, tmp_path: Path) -> None:
    daemon, command = ground.client("anna", kept=tmp_path), ground.client("anna", kept=tmp_path)
    sent = [daemon.register("anna"), command.create_run(b"r" * 32, b"m" * 32), daemon.fund(5), command.fund(6)]
    assert [each.nonce for each in sent] == [0, 1, 2, 3]
    blocks(ground, 1)
    assert {ended.sent for ended in (*daemon.reconcile(), *command.reconcile())} == set(sent)


def test_a_nonce_that_another_program_took_is_told_and_not_at_once(ground: EvmGround, tmp_path: Path) -> None:
    anna, other = ground.client("anna", kept=tmp_path), ground.client("anna")
    sent = anna.register("anna")
    ground.devnet.drop(bytes.fromhex(sent.hash[2:]))
    other.fund(1)
    blocks(ground, 1)
    assert anna.reconcile() == ()  # an endpoint that is behind shows the same
    ground.now_s += MISSING_S
    (ended,) = anna.reconcile()
    assert not ended.done
    assert "took its nonce" in ended.reason


def test_a_transaction_that_reverts_after_all_tells_the_reason(ground: EvmGround, tmp_path: Path) -> None:
    """Two that each would succeed alone: the second finds the first done."""
    anna, bert = ground.client("anna", kept=tmp_path / "a"), ground.client("bert", kept=tmp_path / "b")
    run = b"r" * 32
    sent = [anna.create_run(run, b"m" * 32), bert.create_run(run, b"m" * 32)]
    blocks(ground, 1)
    ended = [anna.wait(sent[0], 1), bert.wait(sent[1], 1)]
    assert sorted(each.done for each in ended) == [False, True]
    assert [each.reason for each in ended if not each.done] == ["sessions: already created"]


def test_a_chain_that_was_begun_anew_has_other_nonces(tmp_path: Path) -> None:
    first = EvmGround(auto_mine=False)
    for amount in range(3):
        first.client("anna", kept=tmp_path).fund(1 + amount)
    second = EvmGround(start_s=1_790_000_500)
    anna = second.client("anna", kept=tmp_path)
    assert anna.wait(anna.register("anna"), 1).done


def test_who_asks_in_a_loop_is_stopped(ground: EvmGround) -> None:
    anna = ground.client("anna")
    for amount in range(MOST_PENDING):
        anna.fund(1 + amount)
    with pytest.raises(ChainRefused, match="in flight already"):
        anna.fund(1000)


def test_an_account_without_money_is_refused_and_leaves_nothing_behind(ground: EvmGround, tmp_path: Path) -> None:
    poor = ground.client("nobody funded this", kept=tmp_path)
    with pytest.raises(ChainRefused, match="insufficient funds"):
        poor.register("poor")
    assert poor.pending() == ()


def test_a_chain_without_eip_1559_gets_legacy_transactions(ground: EvmGround, tmp_path: Path) -> None:
    through = ground.transport

    class Old:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            answer = through(method, parameters)
            if method == "eth_getBlockByNumber" and answer:
                answer.pop("baseFeePerGas")
            return answer

    anna = over(Old(), ground, "anna", tmp_path)
    sent = anna.register("anna")
    assert book_of(tmp_path).transactions[0].fees.legacy
    blocks(ground, 1)
    assert anna.wait(sent, 1).done
    assert through("eth_getTransactionByHash", (sent.hash,))["type"] == "0x0"


GARBAGE = (None, "", "0x", "zz", -1, [], {}, {"number": 5}, "0x" + "f" * 5000)


@pytest.mark.parametrize("method", ["eth_call", "eth_estimateGas", "eth_getTransactionCount", "eth_blockNumber", "eth_getBlockByNumber"])
def test_garbage_is_unreachable_and_nothing_is_sent_on_it(ground: EvmGround, method: str) -> None:
    through = ground.transport
    answer: list[Any] = []

    class Garbling:
        url = through.url

        def __call__(self, asked: str, parameters: Sequence[Any]) -> Any:
            return answer[0] if asked == method else through(asked, parameters)

    anna = over(Garbling(), ground, "anna", None)
    for garbage in GARBAGE:
        answer[:] = [garbage]
        ask = (lambda: anna.agent(anna.account)) if method == "eth_call" else (lambda: anna.register("anna"))
        with pytest.raises(ChainUnreachable):
            ask()
    assert anna.pending() == ()


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
@settings(max_examples=15, deadline=None)
def test_receipts_of_garbage_keep_what_is_in_flight(garbage: Any) -> None:
    ground = SHARED
    ground.devnet.mine()

    class Garbling:
        url = ground.transport.url
        on = False

        def __call__(self, asked: str, parameters: Sequence[Any]) -> Any:
            return garbage if self.on and asked == "eth_getTransactionReceipt" else ground.transport(asked, parameters)

    transport = Garbling()
    anna = over(transport, ground, "anna", None)
    sent = anna.fund(1)
    transport.on = True
    with suppress_chain_errors():
        anna.reconcile()
    transport.on = False
    assert anna.pending() == (sent,)


SHARED = EvmGround(auto_mine=False)


class suppress_chain_errors:  # reads as contextlib's own
    """Whatever of the port's errors comes; anything else is a crash."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, (ChainUnreachable, ChainRefused, WrongChain))


def test_a_plain_chain_is_told_from_ours_before_anything_is_sent(ground: EvmGround) -> None:
    """A plain EVM answers calls to empty addresses with status 1."""
    through = ground.transport
    tries: list[tuple[Callable[[str, Any], Any], str]] = [
        (lambda method, answer: "0x" if method == "eth_getCode" else answer, "no code at 0x0000000000000000000000000000000000000021"),
        (lambda method, answer: "0x1" if method == "eth_chainId" else answer, "expected chain 4195600, found chain 1"),
    ]
    for change, why in tries:

        class Other:
            url = through.url

            def __call__(self, method: str, parameters: Sequence[Any], change: Callable[[str, Any], Any] = change) -> Any:
                assert method != "eth_sendRawTransaction"
                return change(method, through(method, parameters))

        with pytest.raises(WrongChain, match=why):
            over(Other(), ground, "anna", None).register("anna")


def test_a_good_receipt_without_an_effect_is_not_done(ground: EvmGround, tmp_path: Path) -> None:
    through = ground.transport

    class Mute:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            answer = through(method, parameters)
            return answer | {"logs": []} if method == "eth_getTransactionReceipt" and answer else answer

    anna = over(Mute(), ground, "anna", tmp_path)
    sent = anna.register("anna")
    blocks(ground, 1)
    ended: Settled = anna.wait(sent, 1)
    assert not ended.done
    assert "nothing happened" in ended.reason
