"""The embedded EVM: a chain that makes blocks. Only modules of this folder import py-evm.

The rules are Cancun's. A block's time is at least a second after its parent's, and follows the
given clock plus an offset that a test may add. As in geth, a waiting transaction is replaced by one
with the same sender and nonce that offers a tenth more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eth.abc import BlockHeaderAPI, SignedTransactionAPI
from eth.exceptions import PyEVMError
from eth_keys.exceptions import BadSignature
from eth_utils import ValidationError
from rlp.exceptions import RLPException

from contracts.devnet.empty_blocks import KEPT
from contracts.devnet.evm_chain import OFFSET_KEY, EvmChain, Hash
from contracts.devnet.reverts import RpcRefusal
from contracts.devnet.store import SqliteStore
from contracts.devnet.transaction_pool import TransactionPool


class Devnet(EvmChain):
    """A chain that makes blocks. Thread-safe: every method holds the lock."""

    def __init__(
        self, genesis: dict[str, Any], store: SqliteStore, now: Callable[[], float]
    ) -> None:
        """Open the chain in `store`, or begin one there.

        Raises `ValueError` if the stored chain began with another genesis.
        """
        super().__init__(genesis, store, now)
        self._pool = TransactionPool()

    # ---------------------------------------------------------------- blocks

    def mine(self) -> BlockHeaderAPI:
        """Make one block of what waits: the highest tips first, each sender in nonce order.

        The block is durable on return.
        """
        with self.lock:
            self._chain.header = self._next_header()
            for transaction in self._pool.payable(self.base_fee(), self.nonce):
                try:
                    self._chain.apply_transaction(transaction)
                except ValidationError:
                    # A transaction that the sender can no longer pay for is dropped. A full block
                    # is no reason to drop one.
                    used = self._chain.header.gas_used + transaction.gas
                    if used > self._chain.header.gas_limit:
                        continue
                self._pool.remove(transaction)
            self._chain.mine_block()
            self._empty.pack_one(self.head.block_number)
            self._store.commit()
            return self.head

    def go_back(self, number: int) -> None:
        """Make block `number` the head again, as a reorganization does.

        The transactions of later blocks are lost, and so are those that wait.
        """
        with self.lock:
            header = self.header(number)
            if header is None or number < self.head.block_number - KEPT:
                raise ValueError(
                    f"cannot go back to block {number}: only the last {KEPT} are kept whole"
                )
            database = self._chain.chaindb
            # py-evm has no public way back.
            database._set_as_canonical_chain_head(database.db, header, header.parent_hash)
            self._chain.header = self._chain.create_header_from_parent(header)
            self._pool.clear()
            self._store.commit()

    def advance(self, seconds: int) -> None:
        """Advance the chain's clock by `seconds`, and past the last block's time."""
        with self.lock:
            now_s = int(self._now())
            self._offset_s = max(self.head.timestamp, now_s + self._offset_s) + seconds - now_s
            self._store[OFFSET_KEY] = str(self._offset_s).encode()
            self._store.commit()

    # ---------------------------------------------------------------- transactions

    def submit(self, raw: bytes) -> Hash:
        """Accept a signed transaction into the pool. Raises `RpcRefusal` in geth's words."""
        with self.lock:
            transaction = self._decoded(raw)
            sender = transaction.sender
            if self._included(transaction.hash) or transaction in self._pool:
                raise RpcRefusal("already known")
            if transaction.nonce < self.nonce(sender):
                raise RpcRefusal(
                    f"nonce too low: next nonce {self.nonce(sender)}, tx nonce {transaction.nonce}"
                )
            if transaction.gas > self.head.gas_limit:
                raise RpcRefusal("exceeds block gas limit")
            if transaction.gas < transaction.intrinsic_gas:
                raise RpcRefusal("intrinsic gas too low")
            if (
                self.balance(sender)
                < transaction.value + transaction.gas * transaction.max_fee_per_gas
            ):
                raise RpcRefusal("insufficient funds for gas * price + value")
            self._pool.add(transaction)
            return bytes(transaction.hash)

    def _decoded(self, raw: bytes) -> SignedTransactionAPI:
        try:
            transaction = self._chain.get_vm().get_transaction_builder().decode(raw)
            transaction.validate()
            # Recover the sender here, since this fails for a wrong signature.
            _ = transaction.sender
        except (
            ValidationError,
            PyEVMError,
            RLPException,
            BadSignature,
            ValueError,
            TypeError,
            IndexError,
        ) as error:
            raise RpcRefusal(f"invalid transaction: {error}") from None
        found = getattr(transaction, "chain_id", None)
        if found != self.chain_id:
            raise RpcRefusal(f"invalid chain id for signer: have {found} want {self.chain_id}")
        return transaction

    def drop(self, transaction_hash: Hash) -> bool:
        """Remove a waiting transaction, as a node does that restarts or is full."""
        with self.lock:
            found = self._pool.find(transaction_hash)
            if found is not None:
                self._pool.remove(found)
            return found is not None

    def waiting(self, transaction_hash: Hash) -> SignedTransactionAPI | None:
        with self.lock:
            return self._pool.find(transaction_hash)

    # ---------------------------------------------------------------- state

    def nonce(
        self, account: bytes, number: int | None = None, *, with_waiting: bool = False
    ) -> int:
        """Return an account's next nonce, after its waiting transactions if `with_waiting`."""
        with self.lock:
            nonce = super().nonce(account, number)
            while with_waiting and self._pool.has(account, nonce):
                nonce += 1
            return nonce
