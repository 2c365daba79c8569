"""Signs transactions and hands them to a node."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from contracts.abi import refusal
from contracts.endpoints import RpcError
from contracts.fees import Fees
from contracts.node_rpc import NodeRpc
from contracts.pending_transactions import PendingTransaction
from protocol.chain.errors import ChainRefused, ChainUnreachable
from protocol.chain.keccak import Address, keccak256

# geth, nethermind and erigon say one of these about a transaction that they have already.
ALREADY_KNOWN = ("already known", "known transaction", "already imported")
# With one of these answers, no node has the transaction, and none will accept it.
HOPELESS = ("insufficient funds", "nonce too low")

_log = logging.getLogger(__name__)


class TransactionSigner(Protocol):
    """A wallet. eth-account's `LocalAccount` is one."""

    @property
    def address(self) -> str: ...

    def sign_transaction(self, transaction_dict: dict[str, Any], /) -> Any:
        """Return an object whose attribute `raw_transaction` holds the signed bytes."""


class TransactionBroadcaster:
    """Signs with one account's key, and offers signed transactions to a node."""

    def __init__(self, node: NodeRpc, signer: TransactionSigner, chain_id: int) -> None:
        self._node = node
        self._signer = signer
        self._chain_id = chain_id

    @property
    def account(self) -> Address:
        return self._signer.address

    def sign(
        self, nonce: int, to: str, data: str, value: int, gas: int, fees: Fees
    ) -> tuple[str, str]:
        """Return the signed transaction and its hash, both as hex."""
        transaction: dict[str, Any] = {
            "chainId": self._chain_id,
            "nonce": nonce,
            "to": to,
            "data": data,
            "value": value,
            "gas": gas,
        }
        if fees.tip is None:
            transaction |= {"gasPrice": fees.most}
        else:
            transaction |= {"maxFeePerGas": fees.most, "maxPriorityFeePerGas": fees.tip}
        raw = bytes(self._signer.sign_transaction(transaction).raw_transaction)
        return "0x" + raw.hex(), "0x" + keccak256(raw).hex()

    def offer(self, each: PendingTransaction) -> ChainRefused | None:
        """Offer a transaction that is on disk already.

        Returns a refusal only if it is certain that no node has the transaction and that none will
        accept it. After any other failure the transaction stays in flight and is offered again.
        """
        try:
            self._node.offer(each.raw)
        except ChainUnreachable as error:
            _log.info("%s could not be offered and will be offered again: %s", each.kind, error)
        except RpcError as error:
            answer = error.message.lower()
            if any(words in answer for words in HOPELESS):
                # Some node may know an earlier hash, so only a first offer can be withdrawn.
                first = len(each.hashes) == 1
                return refusal(error) if first and not self._was_included(each) else None
            if not any(words in answer for words in ALREADY_KNOWN):
                _log.info(
                    "%s was not accepted and will be offered again: %s", each.kind, error.message
                )
        return None

    def _was_included(self, each: PendingTransaction) -> bool:
        try:
            return self._node.receipt(each.hashes[0]) is not None
        except ChainUnreachable:
            # Nothing is known, so the transaction stays on disk.
            return True
