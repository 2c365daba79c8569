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
from tests.contracts.testnet_controls import (
    ControlledTestnet,
    client_over,
    make_blocks,
    nonce_of,
    pending_of,
)
from tests.contracts.testnets import EvmTestnet


@pytest.fixture
def testnet(testnet: ControlledTestnet) -> ControlledTestnet:
    """Return a chain that makes blocks only on `advance`."""
    testnet.pause_mining(True)
    return testnet


@pytest.mark.parametrize("arrives", [True, False])
def test_an_unanswered_offer_keeps_its_nonce(
    testnet: ControlledTestnet, tmp_path: Path, arrives: bool
) -> None:
    """The connection breaks during eth_sendRawTransaction, after or before the node accepts."""
    through = testnet.transport

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
    anna = client_over(transport, testnet, "anna", tmp_path)
    sent = anna.register("anna")
    assert anna.register("anna") == sent
    transport.broken = False
    anna.reconcile()
    make_blocks(testnet, 1)
    assert anna.wait(sent, 1).hash == sent.hash
    assert nonce_of(testnet, "anna") == 1


def test_a_restart_continues_pending_transactions(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    sent = testnet.client("anna", kept=tmp_path).register("anna")
    # The next process does not send it again.
    assert testnet.client("anna", kept=tmp_path).register("anna") == sent
    assert testnet.client("anna", kept=tmp_path).pending() == (sent,)
    make_blocks(testnet, 1)
    assert testnet.client("anna", kept=tmp_path).wait(sent, 1).done
    assert testnet.client("anna", kept=tmp_path).pending() == ()
    assert nonce_of(testnet, "anna") == 1


def test_a_transaction_is_on_disk_before_it_is_offered(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    through, seen = testnet.transport, []

    class Looking:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            if method == "eth_sendRawTransaction":
                seen.append(
                    [each.raw for each in pending_of(tmp_path).transactions] == [parameters[0]]
                )
            return through(method, parameters)

    client_over(Looking(), testnet, "anna", tmp_path).register("anna")
    assert seen == [True]


def test_two_processes_with_one_wallet_never_use_a_nonce_twice(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    daemon, command = testnet.client("anna", kept=tmp_path), testnet.client("anna", kept=tmp_path)
    sent = [
        daemon.register("anna"),
        command.create_run(b"r" * 32, b"m" * 32),
        daemon.fund(5),
        command.fund(6),
    ]
    assert [each.nonce for each in sent] == [0, 1, 2, 3]
    make_blocks(testnet, 1)
    assert {ended.sent for ended in (*daemon.reconcile(), *command.reconcile())} == set(sent)


def test_a_nonce_used_by_another_program_is_reported_after_a_while(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    anna, other = testnet.client("anna", kept=tmp_path), testnet.client("anna")
    sent = anna.register("anna")
    testnet.drop_transaction(sent.hash)
    other.fund(1)
    make_blocks(testnet, 1)
    # An endpoint that is behind would show the same, so the client waits.
    assert anna.reconcile() == ()
    testnet.now_s += MISSING_S
    (ended,) = anna.reconcile()
    assert not ended.done
    assert "took its nonce" in ended.reason


def test_a_restarted_chain_has_its_own_nonces(tmp_path: Path) -> None:
    """Transactions that were pending on the old chain are not offered to the new one."""
    first = EvmTestnet(auto_mine=False)
    for amount in range(3):
        first.client("anna", kept=tmp_path).fund(1 + amount)
    second = EvmTestnet(start_s=1_790_000_500)
    anna = second.client("anna", kept=tmp_path)
    assert anna.wait(anna.register("anna"), 1).done
    assert (nonce_of(second, "anna"), anna.pool().balance, anna.pending()) == (1, 0, ())


def test_a_transaction_dropped_by_the_node_keeps_its_nonce(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    """The next transaction gets the next nonce, although the node counts one transaction less."""
    anna = testnet.client("anna", kept=tmp_path)
    first = anna.register("anna")
    testnet.drop_transaction(first.hash)
    second = anna.fund(5)
    assert (first.nonce, second.nonce) == (0, 1)
    anna.reconcile()
    make_blocks(testnet, 1)
    assert anna.wait(first, 1).done
    assert anna.wait(second, 1).done


def test_a_replacement_is_on_disk_before_it_is_offered(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    """The next process knows the hash of a replacement that a killed process offered."""
    through = testnet.transport

    class Killed(BaseException):
        """Stands for the death of the process."""

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

    anna = client_over(Fatal(), testnet, "anna", tmp_path)
    sent = anna.register("anna")
    blocks_without_it(testnet, sent.hash)
    testnet.now_s += RAISE_AFTER_S
    with pytest.raises(Killed):
        anna.reconcile()
    (kept,) = pending_of(tmp_path).transactions
    assert len(kept.hashes) == 2
    make_blocks(testnet, 1)
    assert testnet.client("anna", kept=tmp_path).wait(sent, 1).hash == kept.hashes[1]


def blocks_without_it(testnet: ControlledTestnet, transaction: str) -> None:
    """Drop a transaction, and make so many blocks that its fee has to rise."""
    testnet.drop_transaction(transaction)
    make_blocks(testnet, RAISE_AFTER_BLOCKS)


def test_nonce_too_low_after_inclusion_is_no_refusal(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    """The first endpoint's answer was lost, and the second has the transaction in a block."""
    through = testnet.transport

    class Twice:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            if method == "eth_sendRawTransaction":
                through(method, parameters)
                make_blocks(testnet, 1)
                raise RpcError(-32000, "nonce too low: next nonce 1, tx nonce 0")
            return through(method, parameters)

    anna = client_over(Twice(), testnet, "anna", tmp_path)
    assert anna.wait(anna.register("anna"), 1).done


def test_a_damaged_pending_file_is_reported_and_not_replaced(tmp_path: Path) -> None:
    """Nothing is signed beside a damaged file, since its transactions may be pending."""
    testnet = EvmTestnet(auto_mine=False)
    testnet.client("anna", kept=tmp_path).register("anna")
    (file,) = tmp_path.glob("*.json")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="is damaged") as told:
        testnet.client("anna", kept=tmp_path).fund(5)
    assert told.value.code == "PENDING_FILE"
    assert f"mv {file}" in str(told.value.fix)


def test_the_pending_file_is_locked_by_one_process(tmp_path: Path) -> None:
    one = PendingFile(tmp_path / "book.json")
    with one.held():
        handle = os.open(tmp_path / "book.lock", os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(handle)


def test_too_many_pending_transactions_are_refused(testnet: ControlledTestnet) -> None:
    anna = testnet.client("anna")
    for amount in range(MAX_PENDING):
        anna.fund(1 + amount)
    with pytest.raises(ChainRefused, match="in flight already"):
        anna.fund(1000)


def test_a_transaction_that_every_node_refuses_leaves_nothing_pending(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    """The account's money is gone between the estimate and the offer."""
    through = testnet.transport

    class Poor:
        url = through.url

        def __call__(self, method: str, parameters: Sequence[Any]) -> Any:
            if method == "eth_sendRawTransaction":
                raise RpcError(-32000, "insufficient funds for gas * price + value")
            return through(method, parameters)

    anna = client_over(Poor(), testnet, "anna", tmp_path)
    with pytest.raises(ChainRefused, match="insufficient funds"):
        anna.register("anna")
    assert anna.pending() == ()


def test_an_account_without_money_is_refused_and_leaves_nothing_pending(
    testnet: ControlledTestnet, tmp_path: Path
) -> None:
    poor = testnet.client("nobody funded this", kept=tmp_path)
    with pytest.raises(ChainRefused, match=r"(?i)insufficient funds"):
        poor.register("poor")
    assert poor.pending() == ()
