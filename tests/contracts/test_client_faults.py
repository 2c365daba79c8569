"""A chain that stops, reorganizes, forgets a transaction, doubles its price; a client that is restarted at any of it. On both chains.

The clock is the test's own; nothing waits. What must hold: each thing that was sent is included exactly once, and its end is told truly.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.endpoints import RpcError
from contracts.fees import GWEI
from contracts.nonce import MISSING_S, MOST_PENDING, RAISE_AFTER_BLOCKS, RAISE_AFTER_S, WATCHED_BLOCKS
from contracts.pending import PendingFile
from protocol.chain import ChainPending, ChainRefused, ChainUnreachable
from tests.contracts.ground import EvmGround
from tests.contracts.levers import Levers, blocks, book_of, nonce_of, over


@pytest.fixture
def ground(ground: Levers) -> Levers:
    """Blocks are made when the test says so."""
    ground.stop(True)
    return ground


def test_ten_minutes_without_a_block_raise_no_fee_and_lose_nothing(ground: Levers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.chain.POLL_S", 30.0)  # ten minutes in twenty looks
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


def test_ten_minutes_without_an_answer_lose_nothing(ground: Levers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.chain.POLL_S", 30.0)  # ten minutes in twenty looks
    anna = ground.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    ground.cut(True)
    with pytest.raises(ChainUnreachable):
        anna.wait(sent, 600)
    ground.cut(False)
    blocks(ground, 1)
    assert anna.wait(sent, 1).done


@pytest.mark.parametrize("arrives", [True, False])
def test_an_offer_that_got_no_answer_is_not_sent_under_another_nonce(ground: Levers, tmp_path: Path, arrives: bool) -> None:
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
    assert nonce_of(ground, "anna") == 1


def test_a_transaction_that_the_node_forgot_is_offered_again_the_same_bytes(ground: Levers, tmp_path: Path) -> None:
    anna = ground.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    ground.forget(sent.hash)
    blocks(ground, 1)
    assert not anna.agent(anna.account).registered
    assert anna.reconcile() == ()
    blocks(ground, 1)
    assert anna.wait(sent, 1).hash == sent.hash


def test_what_is_stuck_while_blocks_come_is_replaced_at_a_higher_fee(ground: Levers, tmp_path: Path) -> None:
    """The price of gas more than doubles past what was offered, in blocks that are full."""
    anna = ground.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    (before,) = book_of(tmp_path).transactions
    full = 0
    while ground.base_fee() <= before.fees.most:
        ground.crowd()
        full += 1
    assert full >= RAISE_AFTER_BLOCKS
    blocks(ground, 1)
    assert not anna.agent(anna.account).registered  # what it offered is no longer enough
    ground.crowd()
    ground.now_s += RAISE_AFTER_S
    assert anna.reconcile() == ()
    (after,) = book_of(tmp_path).transactions
    assert (after.nonce, len(after.hashes)) == (before.nonce, 2)
    blocks(ground, 1)
    ended = anna.wait(sent, 1)
    assert ended.done
    assert ended.hash == after.hashes[1]
    assert anna.pending() == ()


def test_no_fee_is_above_the_ceiling(ground: Levers, tmp_path: Path) -> None:
    """It waits until the price has fallen, and is still the same transaction."""
    anna = over(ground.transport, ground, "anna", tmp_path, most_per_gas=2 * GWEI)
    sent = anna.register("anna")
    while ground.base_fee() <= 2 * GWEI:
        ground.crowd()
    for _ in range(2):
        ground.crowd()
        ground.now_s += RAISE_AFTER_S
        assert anna.reconcile() == ()
    (kept,) = book_of(tmp_path).transactions
    assert (kept.fees.most, kept.hashes) == (2 * GWEI, (sent.hash,))
    blocks(ground, 6)
    assert anna.wait(sent, 1).hash == sent.hash


def test_a_reorganization_takes_it_out_and_it_comes_in_again(ground: Levers, tmp_path: Path) -> None:
    anna = ground.client("anna", kept=tmp_path, confirmations=3)
    blocks(ground, 1)
    sent = anna.register("anna")
    blocks(ground, 2)
    assert anna.agent(anna.account).registered
    assert anna.reconcile() == ()  # two deep is not three
    ground.go_back(2)
    blocks(ground, 2)
    assert not anna.agent(anna.account).registered
    assert anna.reconcile() == ()
    blocks(ground, 3)
    ended = anna.wait(sent, 1)
    assert ended.done
    assert anna.agent(anna.account).registered


def test_a_reorganization_deeper_than_what_counts_as_settled_is_noticed(ground: Levers, tmp_path: Path, caplog: Any) -> None:
    """Told to be done, and taken out ten blocks later: in flight again, by the next process too, under its own nonce, and told again."""
    anna = ground.client("anna", kept=tmp_path, confirmations=2)
    sent = anna.register("anna")
    blocks(ground, 10)
    assert anna.wait(sent, 1).done
    assert anna.reconcile() != ()
    assert (anna.pending(), anna.reconcile()) == ((), ())
    ground.go_back(10)
    blocks(ground, 3)
    assert not anna.agent(anna.account).registered
    successor = ground.client("anna", kept=tmp_path, confirmations=2)
    other = successor.fund(5)
    assert (sent.nonce, other.nonce) == (0, 1)
    assert "taken out by a reorganization" in caplog.text
    assert set(anna.pending()) == {sent, other}
    assert anna.reconcile() == ()
    with pytest.raises(ChainPending):  # the end that was told is one no longer
        anna.wait(sent, 0)
    blocks(ground, 3)
    assert anna.wait(sent, 1).done
    assert sent in {ended.sent for ended in anna.reconcile()}
    assert anna.agent(anna.account).registered
    blocks(ground, WATCHED_BLOCKS)
    assert anna.reconcile() == ()
    assert book_of(tmp_path).watched == ()


def test_a_restart_at_any_moment_sees_everything_through(ground: Levers, tmp_path: Path) -> None:
    sent = ground.client("anna", kept=tmp_path).register("anna")
    assert ground.client("anna", kept=tmp_path).register("anna") == sent  # the next process does not send it again
    assert ground.client("anna", kept=tmp_path).pending() == (sent,)
    blocks(ground, 1)
    assert ground.client("anna", kept=tmp_path).wait(sent, 1).done
    assert ground.client("anna", kept=tmp_path).pending() == ()
    assert nonce_of(ground, "anna") == 1


def test_it_is_on_disk_before_it_is_offered(ground: Levers, tmp_path: Path) -> None:
    through, seen = ground.transport, []

    class Looking:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            if method == "eth_sendRawTransaction":
                seen.append([each.raw for each in book_of(tmp_path).transactions] == [parameters[0]])
            return through(method, parameters)

    over(Looking(), ground, "anna", tmp_path).register("anna")
    assert seen == [True]


def test_two_processes_with_one_wallet_never_use_a_nonce_twice(ground: Levers, tmp_path: Path) -> None:
    daemon, command = ground.client("anna", kept=tmp_path), ground.client("anna", kept=tmp_path)
    sent = [daemon.register("anna"), command.create_run(b"r" * 32, b"m" * 32), daemon.fund(5), command.fund(6)]
    assert [each.nonce for each in sent] == [0, 1, 2, 3]
    blocks(ground, 1)
    assert {ended.sent for ended in (*daemon.reconcile(), *command.reconcile())} == set(sent)


def test_a_nonce_that_another_program_took_is_told_and_not_at_once(ground: Levers, tmp_path: Path) -> None:
    anna, other = ground.client("anna", kept=tmp_path), ground.client("anna")
    sent = anna.register("anna")
    ground.forget(sent.hash)
    other.fund(1)
    blocks(ground, 1)
    assert anna.reconcile() == ()  # an endpoint that is behind shows the same
    ground.now_s += MISSING_S
    (ended,) = anna.reconcile()
    assert not ended.done
    assert "took its nonce" in ended.reason


def test_a_transaction_that_reverts_after_all_tells_the_reason(ground: Levers, tmp_path: Path) -> None:
    """Two that each would succeed alone: the second finds the first done."""
    through = ground.transport

    class Behind:
        """Its estimates know nothing of what waits."""

        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            return hex(200_000) if method == "eth_estimateGas" else through(method, parameters)

    anna, bert = over(Behind(), ground, "anna", tmp_path / "a"), over(Behind(), ground, "bert", tmp_path / "b")
    run = b"r" * 32
    sent = [anna.create_run(run, b"m" * 32), bert.create_run(run, b"m" * 32)]
    blocks(ground, 1)
    ended = [anna.wait(sent[0], 1), bert.wait(sent[1], 1)]
    assert sorted(each.done for each in ended) == [False, True]
    assert [each.reason for each in ended if not each.done] == ["sessions: already created"]


def test_a_chain_that_was_begun_anew_has_other_nonces(tmp_path: Path) -> None:
    """And what waited on the old one, signed for the same chain id, is not offered to it."""
    first = EvmGround(auto_mine=False)
    for amount in range(3):
        first.client("anna", kept=tmp_path).fund(1 + amount)
    second = EvmGround(start_s=1_790_000_500)
    anna = second.client("anna", kept=tmp_path)
    assert anna.wait(anna.register("anna"), 1).done
    assert (nonce_of(second, "anna"), anna.pool().balance, anna.pending()) == (1, 0, ())


def test_what_a_node_forgot_keeps_its_nonce(ground: Levers, tmp_path: Path) -> None:
    """The node counts one less than was signed: what is sent next goes behind what it forgot, not in its place."""
    anna = ground.client("anna", kept=tmp_path)
    first = anna.register("anna")
    ground.forget(first.hash)
    second = anna.fund(5)
    assert (first.nonce, second.nonce) == (0, 1)
    anna.reconcile()
    blocks(ground, 1)
    assert anna.wait(first, 1).done
    assert anna.wait(second, 1).done


def test_a_replacement_is_on_disk_before_it_is_offered(ground: Levers, tmp_path: Path) -> None:
    """The process is killed while it offers the higher fee, which the node takes: the next one knows that hash."""
    through = ground.transport

    class Killed(BaseException):
        """Of a process."""

    class Fatal:
        url = through.url
        offers = 0

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            answer = through(method, parameters)
            if method == "eth_sendRawTransaction":
                self.offers += 1
                if self.offers == 2:
                    raise Killed
            return answer

    anna = over(Fatal(), ground, "anna", tmp_path)
    sent = anna.register("anna")
    blocks_without_it(ground, sent.hash)
    ground.now_s += RAISE_AFTER_S
    with pytest.raises(Killed):
        anna.reconcile()
    (kept,) = book_of(tmp_path).transactions
    assert len(kept.hashes) == 2
    blocks(ground, 1)
    assert ground.client("anna", kept=tmp_path).wait(sent, 1).hash == kept.hashes[1]


def blocks_without_it(ground: Levers, transaction: str) -> None:
    """So many that its fee is to be raised, and it waits nowhere."""
    ground.forget(transaction)
    blocks(ground, RAISE_AFTER_BLOCKS)


def test_a_nonce_too_low_because_it_was_included_already_is_no_refusal(ground: Levers, tmp_path: Path) -> None:
    """The first endpoint took it and its answer was lost; the second, offered the same, has it in a block already."""
    through = ground.transport

    class Twice:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            if method == "eth_sendRawTransaction":
                through(method, parameters)
                blocks(ground, 1)
                raise RpcError(-32000, "nonce too low: next nonce 1, tx nonce 0")
            return through(method, parameters)

    anna = over(Twice(), ground, "anna", tmp_path)
    assert anna.wait(anna.register("anna"), 1).done


def test_the_book_is_one_processs_at_a_time(tmp_path: Path) -> None:
    one = PendingFile(tmp_path / "book.json")
    with one.held():
        handle = os.open(tmp_path / "book.lock", os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(handle)


def test_a_price_above_the_ceiling_is_not_offered_even_first(ground: Levers, tmp_path: Path) -> None:
    anna = over(ground.transport, ground, "anna", tmp_path, most_per_gas=GWEI)
    anna.register("anna")
    assert [each.fees.most for each in book_of(tmp_path).transactions] == [GWEI]


def test_who_asks_in_a_loop_is_stopped(ground: Levers) -> None:
    anna = ground.client("anna")
    for amount in range(MOST_PENDING):
        anna.fund(1 + amount)
    with pytest.raises(ChainRefused, match="in flight already"):
        anna.fund(1000)


def test_what_no_node_will_take_leaves_nothing_behind(ground: Levers, tmp_path: Path) -> None:
    """The money went between the estimate and the offer."""
    through = ground.transport

    class Poor:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            if method == "eth_sendRawTransaction":
                raise RpcError(-32000, "insufficient funds for gas * price + value")
            return through(method, parameters)

    anna = over(Poor(), ground, "anna", tmp_path)
    with pytest.raises(ChainRefused, match="insufficient funds"):
        anna.register("anna")
    assert anna.pending() == ()


def test_an_account_without_money_is_refused_and_leaves_nothing_behind(ground: Levers, tmp_path: Path) -> None:
    poor = ground.client("nobody funded this", kept=tmp_path)
    with pytest.raises(ChainRefused, match=r"(?i)insufficient funds"):
        poor.register("poor")
    assert poor.pending() == ()
