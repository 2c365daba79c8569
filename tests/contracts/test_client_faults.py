"""A chain that stops, reorganizes, forgets a transaction, or doubles its price; on both chains.

The test owns the clock, so nothing waits. Each transaction is included exactly once, and its end is
reported correctly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.fees import GWEI
from contracts.reorganization_watch import WATCHED_BLOCKS
from contracts.transaction_sender import RAISE_AFTER_BLOCKS, RAISE_AFTER_S
from protocol.chain.errors import ChainPending, ChainUnreachable
from tests.contracts.ground import DELAY_S
from tests.contracts.levers import Levers, blocks, book_of, over
from tests.ports.chain_kit import fund, propose


@pytest.fixture
def ground(ground: Levers) -> Levers:
    """Blocks are made when the test says so."""
    ground.stop(True)
    return ground


def test_ten_minutes_without_a_block_raise_no_fee_and_lose_nothing(
    ground: Levers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.transaction_tracker.POLL_S", 30.0)  # ten minutes in twenty looks
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


def test_ten_minutes_without_an_answer_lose_nothing(
    ground: Levers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.transaction_tracker.POLL_S", 30.0)  # ten minutes in twenty looks
    anna = ground.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    ground.cut(True)
    with pytest.raises(ChainUnreachable):
        anna.wait(sent, 600)
    ground.cut(False)
    blocks(ground, 1)
    assert anna.wait(sent, 1).done


def test_a_transaction_that_the_node_forgot_is_offered_again_the_same_bytes(
    ground: Levers, tmp_path: Path
) -> None:
    anna = ground.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    ground.forget(sent.hash)
    blocks(ground, 1)
    assert not anna.agent(anna.account).registered
    assert anna.reconcile() == ()
    blocks(ground, 1)
    assert anna.wait(sent, 1).hash == sent.hash


def test_what_is_stuck_while_blocks_come_is_replaced_at_a_higher_fee(
    ground: Levers, tmp_path: Path
) -> None:
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
    anna = over(ground.transport, ground, "anna", tmp_path, max_fee_per_gas=2 * GWEI)
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


def test_a_reorganization_takes_it_out_and_it_comes_in_again(
    ground: Levers, tmp_path: Path
) -> None:
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


def test_a_reorganization_deeper_than_what_counts_as_settled_is_noticed(
    ground: Levers, tmp_path: Path, caplog: Any
) -> None:
    """Told to be done, and taken out ten blocks later: in flight again, by the next process too,
    under its own nonce, and told again.
    """
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
    assert "A reorganization took out register" in caplog.text
    assert set(anna.pending()) == {sent, other}
    assert anna.reconcile() == ()
    with pytest.raises(ChainPending):  # the reported end is void
        anna.wait(sent, 0)
    blocks(ground, 3)
    assert anna.wait(sent, 1).done
    assert sent in {ended.sent for ended in anna.reconcile()}
    assert anna.agent(anna.account).registered
    blocks(ground, WATCHED_BLOCKS)
    assert anna.reconcile() == ()
    assert book_of(tmp_path).watched == ()


def test_a_transaction_that_reverts_after_all_tells_the_reason(
    ground: Levers, tmp_path: Path
) -> None:
    """Two that each would succeed alone: the second finds the first done."""
    through = ground.transport

    class Behind:
        """Its estimates know nothing of what waits."""

        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            return hex(200_000) if method == "eth_estimateGas" else through(method, parameters)

    anna, bert = (
        over(Behind(), ground, "anna", tmp_path / "a"),
        over(Behind(), ground, "bert", tmp_path / "b"),
    )
    ground.stop(False)
    fund(ground, 1000)
    propose(ground, {"anna": 300})
    ground.advance(DELAY_S)
    ground.stop(True)
    sent = [anna.activate(), bert.activate()]
    blocks(ground, 1)
    ended = [anna.wait(sent[0], 1), bert.wait(sent[1], 1)]
    assert sorted(each.done for each in ended) == [False, True]
    assert [each.reason for each in ended if not each.done] == ["pool: no root is pending"]


def test_a_price_above_the_ceiling_is_not_offered_even_first(
    ground: Levers, tmp_path: Path
) -> None:
    anna = over(ground.transport, ground, "anna", tmp_path, max_fee_per_gas=GWEI)
    anna.register("anna")
    assert [each.fees.most for each in book_of(tmp_path).transactions] == [GWEI]
