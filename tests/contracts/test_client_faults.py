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
from tests.contracts.testnet_controls import ControlledTestnet, client_over, make_blocks, pending_of
from tests.contracts.testnets import DELAY_S
from tests.ports.chain_kit import fund, propose


@pytest.fixture
def testnet(testnet: ControlledTestnet) -> ControlledTestnet:
    """Return a chain that makes blocks only on `advance`."""
    testnet.pause_mining(True)
    return testnet


def test_ten_minutes_without_a_block_raise_no_fee_and_lose_nothing(
    testnet: ControlledTestnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client polls twenty times in ten minutes.
    monkeypatch.setattr("contracts.transaction_tracker.POLL_S", 30.0)
    anna = testnet.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    for _ in range(20):
        testnet.now_s += 30
        assert anna.reconcile() == ()
    assert [each.hashes for each in pending_of(tmp_path).transactions] == [(sent.hash,)]
    with pytest.raises(ChainPending):
        anna.wait(sent, 600)
    make_blocks(testnet, 1)
    assert anna.wait(sent, 1).hash == sent.hash


def test_ten_minutes_without_an_answer_lose_nothing(
    testnet: ControlledTestnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client polls twenty times in ten minutes.
    monkeypatch.setattr("contracts.transaction_tracker.POLL_S", 30.0)
    anna = testnet.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    testnet.set_unreachable(True)
    with pytest.raises(ChainUnreachable):
        anna.wait(sent, 600)
    testnet.set_unreachable(False)
    make_blocks(testnet, 1)
    assert anna.wait(sent, 1).done


def test_a_dropped_transaction_is_sent_again_with_the_same_bytes(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    anna = testnet.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    testnet.drop_transaction(sent.hash)
    make_blocks(testnet, 1)
    assert not anna.agent(anna.account).registered
    assert anna.reconcile() == ()
    make_blocks(testnet, 1)
    assert anna.wait(sent, 1).hash == sent.hash


def test_a_stuck_transaction_is_replaced_at_a_higher_fee(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    """Full blocks raise the base fee above the fee that the transaction offers."""
    anna = testnet.client("anna", kept=tmp_path)
    sent = anna.register("anna")
    (before,) = pending_of(tmp_path).transactions
    full = 0
    while testnet.base_fee() <= before.fees.most:
        testnet.raise_base_fee()
        full += 1
    assert full >= RAISE_AFTER_BLOCKS
    make_blocks(testnet, 1)
    # The offered fee is now too low.
    assert not anna.agent(anna.account).registered
    testnet.raise_base_fee()
    testnet.now_s += RAISE_AFTER_S
    assert anna.reconcile() == ()
    (after,) = pending_of(tmp_path).transactions
    assert (after.nonce, len(after.hashes)) == (before.nonce, 2)
    make_blocks(testnet, 1)
    ended = anna.wait(sent, 1)
    assert ended.done
    assert ended.hash == after.hashes[1]
    assert anna.pending() == ()


def test_no_fee_is_above_the_ceiling(testnet: ControlledTestnet, tmp_path: Path) -> None:
    """The transaction waits unchanged until the base fee has fallen."""
    anna = client_over(testnet.transport, testnet, "anna", tmp_path, max_fee_per_gas=2 * GWEI)
    sent = anna.register("anna")
    while testnet.base_fee() <= 2 * GWEI:
        testnet.raise_base_fee()
    for _ in range(2):
        testnet.raise_base_fee()
        testnet.now_s += RAISE_AFTER_S
        assert anna.reconcile() == ()
    (kept,) = pending_of(tmp_path).transactions
    assert (kept.fees.most, kept.hashes) == (2 * GWEI, (sent.hash,))
    make_blocks(testnet, 6)
    assert anna.wait(sent, 1).hash == sent.hash


def test_a_transaction_lost_in_a_reorganization_is_included_again(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    anna = testnet.client("anna", kept=tmp_path, confirmations=3)
    make_blocks(testnet, 1)
    sent = anna.register("anna")
    make_blocks(testnet, 2)
    assert anna.agent(anna.account).registered
    # The transaction has two of three confirmations.
    assert anna.reconcile() == ()
    testnet.reorganize(2)
    make_blocks(testnet, 2)
    assert not anna.agent(anna.account).registered
    assert anna.reconcile() == ()
    make_blocks(testnet, 3)
    ended = anna.wait(sent, 1)
    assert ended.done
    assert anna.agent(anna.account).registered


def test_a_reorganization_deeper_than_the_confirmations_is_noticed(
    testnet: ControlledTestnet, tmp_path: Path, caplog: Any
) -> None:
    """A settled transaction that a reorganization removes is pending again under its nonce.

    This holds in the next process too, which then reports the outcome a second time.
    """
    anna = testnet.client("anna", kept=tmp_path, confirmations=2)
    sent = anna.register("anna")
    make_blocks(testnet, 10)
    assert anna.wait(sent, 1).done
    assert anna.reconcile() != ()
    assert (anna.pending(), anna.reconcile()) == ((), ())
    testnet.reorganize(10)
    make_blocks(testnet, 3)
    assert not anna.agent(anna.account).registered
    successor = testnet.client("anna", kept=tmp_path, confirmations=2)
    other = successor.fund(5)
    assert (sent.nonce, other.nonce) == (0, 1)
    assert "A reorganization took out register" in caplog.text
    assert set(anna.pending()) == {sent, other}
    assert anna.reconcile() == ()
    # The reported outcome no longer holds.
    with pytest.raises(ChainPending):
        anna.wait(sent, 0)
    make_blocks(testnet, 3)
    assert anna.wait(sent, 1).done
    assert sent in {ended.sent for ended in anna.reconcile()}
    assert anna.agent(anna.account).registered
    make_blocks(testnet, WATCHED_BLOCKS)
    assert anna.reconcile() == ()
    assert pending_of(tmp_path).watched == ()


def test_a_transaction_that_reverts_on_chain_has_the_reason(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    """The second of two activations that would each succeed alone reverts."""
    through = testnet.transport

    class Behind:
        """Its gas estimates ignore pending transactions."""

        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            return hex(200_000) if method == "eth_estimateGas" else through(method, parameters)

    anna, bert = (
        client_over(Behind(), testnet, "anna", tmp_path / "a"),
        client_over(Behind(), testnet, "bert", tmp_path / "b"),
    )
    testnet.pause_mining(False)
    fund(testnet, 1000)
    propose(testnet, {"anna": 300})
    testnet.advance(DELAY_S)
    testnet.pause_mining(True)
    sent = [anna.activate(), bert.activate()]
    make_blocks(testnet, 1)
    ended = [anna.wait(sent[0], 1), bert.wait(sent[1], 1)]
    assert sorted(each.done for each in ended) == [False, True]
    assert [each.reason for each in ended if not each.done] == ["pool: no root is pending"]


def test_the_first_offer_is_not_above_the_ceiling(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    anna = client_over(testnet.transport, testnet, "anna", tmp_path, max_fee_per_gas=GWEI)
    anna.register("anna")
    assert [each.fees.most for each in pending_of(tmp_path).transactions] == [GWEI]
