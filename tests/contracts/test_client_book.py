"""The file of pending transactions: written before an offer, and read by the next process.

The tests run on both chains. The test owns the clock, so nothing waits. Nothing is sent twice, and
nothing that was signed is forgotten.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.endpoints import RpcError
from contracts.pending_transactions import PendingFile
from contracts.transaction_sender import MAX_PENDING, MISSING_S, RAISE_AFTER_BLOCKS, RAISE_AFTER_S
from protocol.chain.errors import ChainRefused, ChainUnreachable
from protocol.errors import UserError
from tests.contracts.ground import EvmGround
from tests.contracts.levers import Levers, blocks, book_of, nonce_of, over


@pytest.fixture
def ground(ground: Levers) -> Levers:
    """Blocks are made when the test says so."""
    ground.stop(True)
    return ground


@pytest.mark.parametrize("arrives", [True, False])
def test_an_offer_that_got_no_answer_is_not_sent_under_another_nonce(
    ground: Levers, tmp_path: Path, arrives: bool
) -> None:
    """The connection breaks in the middle of eth_sendRawTransaction, after or before the node took
    it.
    """
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


def test_a_restart_at_any_moment_sees_everything_through(ground: Levers, tmp_path: Path) -> None:
    sent = ground.client("anna", kept=tmp_path).register("anna")
    # The next process does not send it again.
    assert ground.client("anna", kept=tmp_path).register("anna") == sent
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
                seen.append(
                    [each.raw for each in book_of(tmp_path).transactions] == [parameters[0]]
                )
            return through(method, parameters)

    over(Looking(), ground, "anna", tmp_path).register("anna")
    assert seen == [True]


def test_two_processes_with_one_wallet_never_use_a_nonce_twice(
    ground: Levers, tmp_path: Path
) -> None:
    daemon, command = ground.client("anna", kept=tmp_path), ground.client("anna", kept=tmp_path)
    sent = [
        daemon.register("anna"),
        command.create_run(b"r" * 32, b"m" * 32),
        daemon.fund(5),
        command.fund(6),
    ]
    assert [each.nonce for each in sent] == [0, 1, 2, 3]
    blocks(ground, 1)
    assert {ended.sent for ended in (*daemon.reconcile(), *command.reconcile())} == set(sent)


def test_a_nonce_that_another_program_took_is_told_and_not_at_once(
    ground: Levers, tmp_path: Path
) -> None:
    anna, other = ground.client("anna", kept=tmp_path), ground.client("anna")
    sent = anna.register("anna")
    ground.forget(sent.hash)
    other.fund(1)
    blocks(ground, 1)
    # An endpoint that is behind shows the same.
    assert anna.reconcile() == ()
    ground.now_s += MISSING_S
    (ended,) = anna.reconcile()
    assert not ended.done
    assert "took its nonce" in ended.reason


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
    """The node counts one less than was signed: what is sent next goes behind what it forgot, not
    in its place.
    """
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
    """The process is killed while it offers the higher fee, which the node takes: the next one
    knows that hash.
    """
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


def test_a_nonce_too_low_because_it_was_included_already_is_no_refusal(
    ground: Levers, tmp_path: Path
) -> None:
    """The first endpoint took it and its answer was lost; the second, offered the same, has it in a
    block already.
    """
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


def test_a_damaged_book_is_told_and_not_begun_anew(tmp_path: Path) -> None:
    """What it held may be in flight: nothing is signed beside it."""
    ground = EvmGround(auto_mine=False)
    ground.client("anna", kept=tmp_path).register("anna")
    (file,) = tmp_path.glob("*.json")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="is damaged") as told:
        ground.client("anna", kept=tmp_path).fund(5)
    assert told.value.code == "PENDING_FILE"
    assert f"mv {file}" in str(told.value.fix)


def test_the_book_is_one_processs_at_a_time(tmp_path: Path) -> None:
    one = PendingFile(tmp_path / "book.json")
    with one.held():
        handle = os.open(tmp_path / "book.lock", os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(handle)


def test_who_asks_in_a_loop_is_stopped(ground: Levers) -> None:
    anna = ground.client("anna")
    for amount in range(MAX_PENDING):
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


def test_an_account_without_money_is_refused_and_leaves_nothing_behind(
    ground: Levers, tmp_path: Path
) -> None:
    poor = ground.client("nobody funded this", kept=tmp_path)
    with pytest.raises(ChainRefused, match=r"(?i)insufficient funds"):
        poor.register("poor")
    assert poor.pending() == ()
