"""The embedded EVM: blocks, state and waiting transactions over py-evm, which only modules of this
folder import.

Rules: Cancun. A block's time is at least a second after its parent's and follows the clock that is
given, plus an offset that a test may add. A waiting transaction is replaced by one with the same
sender and nonce that offers a tenth more, as geth does it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from eth.abc import BlockAPI, BlockHeaderAPI, ReceiptAPI, SignedTransactionAPI
from eth.db.atomic import AtomicDB
from eth.estimators.gas import binary_gas_search_1000_tolerance
from eth.exceptions import HeaderNotFound, PyEVMError, TransactionNotFound
from eth.vm.spoof import SpoofTransaction
from eth_keys.exceptions import BadSignature
from eth_utils import ValidationError
from rlp.exceptions import RLPException

from contracts.devnet.genesis_block import chain_class, first_header, first_state
from contracts.devnet.packing import KEPT, EmptyBlocks
from contracts.devnet.reverts import RpcRefusal, refused
from contracts.devnet.store import SqliteStore

# Transactions; a devnet's whole load is a few per node and epoch.
MOST_WAITING = 4096
REPLACE_PERCENT = 110  # geth's --txpool.pricebump of 10
GENESIS_KEY = b"hypergpu/genesis"
OFFSET_KEY = b"hypergpu/offset"
Hash = bytes


class MinedTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction in a block of the canonical chain.

    `receipt` is py-evm's, with the gas of the whole block up to it.
    """

    block: Any
    index: int
    transaction: Any
    receipt: Any
    gas: int
    first_log: int


class Devnet:
    """One chain. Thread-safe: every method takes the lock."""

    def __init__(
        self, genesis: dict[str, Any], store: SqliteStore, now: Callable[[], float]
    ) -> None:
        """Goes on with what the store holds.

        Raises `ValueError` when that began with another genesis.
        """
        self.lock = threading.RLock()
        self.chain_id = int(genesis["config"]["chainId"])
        self._store = store
        self._now = now
        self._waiting: dict[tuple[bytes, int], SignedTransactionAPI] = {}
        kind = chain_class(self.chain_id)
        written = msgspec.json.encode(genesis, order="sorted")
        if store.exists(GENESIS_KEY):
            if store[GENESIS_KEY] != written:
                raise ValueError("the chain that is kept here began with another genesis")
            self._chain = kind(AtomicDB(store))
        else:
            self._chain = kind.from_genesis(
                AtomicDB(store), first_header(genesis), first_state(genesis)
            )
            store[GENESIS_KEY] = written
            store.commit()
        self._empty = EmptyBlocks(store, self._chain)
        self._offset_s = int(store[OFFSET_KEY]) if store.exists(OFFSET_KEY) else 0

    # ---------------------------------------------------------------- blocks

    @property
    def head(self) -> BlockHeaderAPI:
        with self.lock:
            return self._chain.get_canonical_head()

    def header(self, number: int) -> BlockHeaderAPI | None:
        with self.lock:
            if not 0 <= number <= self.head.block_number:
                return None
            try:
                return self._chain.get_canonical_block_header_by_number(number)
            except HeaderNotFound:
                return self._empty.header(number)

    def block(self, number: int) -> BlockAPI | None:
        with self.lock:
            header = self.header(number)
            return None if header is None else self._chain.get_block_by_header(header)

    def busy_blocks(self, first: int, last: int) -> Iterator[BlockAPI]:
        """Those with transactions, both ends included."""
        for number in range(first, last + 1):
            with self.lock:
                if self._empty.holds(number) or (block := self.block(number)) is None:
                    continue
            if block.transactions:
                yield block

    def number_of(self, block_hash: Hash) -> int | None:
        """The number of a block of the canonical chain.

        Of an old empty one nobody knows the hash any more.
        """
        with self.lock:
            try:
                number = self._chain.get_block_header_by_hash(block_hash).block_number
            except HeaderNotFound:
                return None
            header = self.header(number)
            return number if header is not None and header.hash == block_hash else None

    def mine(self) -> BlockHeaderAPI:
        """One block with what waits, in the order of tips within the order of nonces.

        Durable on return.
        """
        with self.lock:
            self._chain.header = self._next_header()
            for key, transaction in self._payable():
                try:
                    self._chain.apply_transaction(transaction)
                except ValidationError:
                    if (
                        self._chain.header.gas_used + transaction.gas
                        <= self._chain.header.gas_limit
                    ):
                        # It can no longer be paid for; a full block is no reason to drop it.
                        del self._waiting[key]
                    continue
                del self._waiting[key]
            self._chain.mine_block()
            self._empty.pack_one(self.head.block_number)
            self._store.commit()
            return self.head

    def go_back(self, number: int) -> None:
        """Makes block `number` the head again, as a reorganization does; what came after it waits
        nowhere.
        """
        with self.lock:
            header = self.header(number)
            if header is None or number < self.head.block_number - KEPT:
                raise ValueError(
                    f"there is no block {number} to go back to: the last {KEPT} are kept whole"
                )
            database = self._chain.chaindb
            # Py-evm has no public way back.
            database._set_as_canonical_chain_head(database.db, header, header.parent_hash)
            self._chain.header = self._chain.create_header_from_parent(header)
            self._waiting.clear()
            self._store.commit()

    def advance(self, seconds: int) -> None:
        """From now on the chain's clock is `seconds` ahead of where it was, and of the last block,
        which may be ahead of it.
        """
        with self.lock:
            now_s = int(self._now())
            self._offset_s = max(self.head.timestamp, now_s + self._offset_s) + seconds - now_s
            self._store[OFFSET_KEY] = str(self._offset_s).encode()
            self._store.commit()

    # ---------------------------------------------------------------- transactions

    def submit(self, raw: bytes) -> Hash:
        """Takes a signed transaction to wait for a block. Raises `RpcRefusal` in geth's words."""
        with self.lock:
            try:
                transaction = self._chain.get_vm().get_transaction_builder().decode(raw)
                transaction.validate()
                sender = transaction.sender
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
            if getattr(transaction, "chain_id", None) != self.chain_id:
                raise RpcRefusal(
                    f"invalid chain id for signer: have {getattr(transaction, 'chain_id', None)} want {self.chain_id}"
                )
            if self._included(transaction.hash) or transaction in self._waiting.values():
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
            before = self._waiting.get((sender, transaction.nonce))
            if before is not None and not _outbids(transaction, before):
                raise RpcRefusal("replacement transaction underpriced")
            if before is None and len(self._waiting) >= MOST_WAITING:
                raise RpcRefusal("txpool is full")
            self._waiting[(sender, transaction.nonce)] = transaction
            return bytes(transaction.hash)

    def drop(self, transaction_hash: Hash) -> bool:
        """Forgets a waiting transaction, as a node does that is restarted or full."""
        with self.lock:
            for key, transaction in self._waiting.items():
                if transaction.hash == transaction_hash:
                    del self._waiting[key]
                    return True
            return False

    def waiting(self, transaction_hash: Hash) -> SignedTransactionAPI | None:
        with self.lock:
            return next(
                (found for found in self._waiting.values() if found.hash == transaction_hash), None
            )

    def included(self, transaction_hash: Hash) -> MinedTransaction | None:
        with self.lock:
            return self._included(transaction_hash)

    def _included(self, transaction_hash: Hash) -> MinedTransaction | None:
        try:
            number, index = self._chain.get_canonical_transaction_index(transaction_hash)
            block = self.block(number)
        except TransactionNotFound:
            return None
        # The index outlives a reorganization: only what the canonical block really holds counts.
        if (
            block is None
            or index >= len(block.transactions)
            or block.transactions[index].hash != transaction_hash
        ):
            return None
        return list(self.receipts(block))[index]

    def receipts(self, block: BlockAPI) -> Iterator[MinedTransaction]:
        """What is in a block, in order."""
        with self.lock:
            receipts: tuple[ReceiptAPI, ...] = block.get_receipts(self._chain.chaindb)
        before = logs = 0
        for index, (transaction, receipt) in enumerate(
            zip(block.transactions, receipts, strict=True)
        ):
            yield MinedTransaction(
                block=block,
                index=index,
                transaction=transaction,
                receipt=receipt,
                gas=receipt.gas_used - before,
                first_log=logs,
            )
            before = receipt.gas_used
            logs += len(receipt.logs)

    # ---------------------------------------------------------------- state

    def nonce(
        self, account: bytes, number: int | None = None, *, with_waiting: bool = False
    ) -> int:
        with self.lock:
            nonce = int(self._state(number).get_nonce(account))
            while with_waiting and (account, nonce) in self._waiting:
                nonce += 1
            return nonce

    def balance(self, account: bytes, number: int | None = None) -> int:
        with self.lock:
            return int(self._state(number).get_balance(account))

    def code(self, account: bytes, number: int | None = None) -> bytes:
        with self.lock:
            return bytes(self._state(number).get_code(account))

    def storage(self, account: bytes, slot: int, number: int | None = None) -> int:
        with self.lock:
            return int(self._state(number).get_storage(account, slot))

    def call(
        self,
        *,
        sender: bytes,
        to: bytes,
        data: bytes,
        value: int,
        gas: int,
        number: int | None = None,
    ) -> bytes:
        """What a call would return: in the block after the head, at its time, or at the end of an
        old block.

        Raises `RpcRefusal`.
        """
        with self.lock:
            computation = self._execute(self._spoofed(sender, to, data, value, gas), number)
            if computation.is_error:
                raise refused(computation.error, computation.output)
            return bytes(computation.output)

    def estimate(self, *, sender: bytes, to: bytes, data: bytes, value: int) -> int:
        """Gas with which it succeeds in the next block, seldom more than a fiftieth too much.

        Raises `RpcRefusal` where none is enough.
        """
        with self.lock:
            if self.balance(sender) < value:
                raise RpcRefusal("insufficient funds for transfer")
            most = self._spoofed(sender, to, data, value, self.head.gas_limit)
            computation = self._execute(most, None)
            if computation.is_error:
                raise refused(computation.error, computation.output)
            used = most.intrinsic_gas + computation.get_gas_used()
            # Each call inside keeps a 64th back (EIP-150).
            likely = used * 64 // 63 + 2300
            if not self._execute(self._spoofed(sender, to, data, value, likely), None).is_error:
                return int(likely)
            return int(binary_gas_search_1000_tolerance(self._state_for_calls(None), most))

    def _execute(self, transaction: Any, number: int | None) -> Any:
        try:
            return self._state_for_calls(number).costless_execute_transaction(transaction)
        except ValidationError as error:
            raise RpcRefusal(str(error)) from None

    def _state_for_calls(self, number: int | None) -> Any:
        """A state that nobody keeps, in which gas costs nothing. py-evm's own takes the wall clock
        for the block's time.
        """
        header = self._next_header() if number is None else self.header(number)
        if header is None:
            raise RpcRefusal(f"there is no block {number}")
        vm = self._chain.get_vm(header)
        return vm.build_state(
            self._chain.chaindb.db,
            header.copy(base_fee_per_gas=0),
            vm.chain_context,
            vm.previous_hashes,
        )

    def close(self) -> None:
        with self.lock:
            self._store.close()

    def _spoofed(self, sender: bytes, to: bytes, data: bytes, value: int, gas: int) -> Any:
        unsigned = self._chain.create_unsigned_transaction(
            nonce=self.nonce(sender),
            gas_price=self.base_fee(),
            gas=gas,
            to=to,
            value=value,
            data=data,
        )
        return SpoofTransaction(unsigned, from_=sender)

    def base_fee(self) -> int:
        """Of the block after the head."""
        with self.lock:
            return int(self._next_header().base_fee_per_gas)

    def _next_header(self) -> BlockHeaderAPI:
        head = self.head
        # The limit stays: by itself py-evm lets it sink, as miners once voted.
        at_s = max(head.timestamp + 1, int(self._now()) + self._offset_s)
        return self._chain.create_header_from_parent(head, timestamp=at_s, gas_limit=head.gas_limit)

    def _state(self, number: int | None) -> Any:
        header = self.head if number is None else self.header(number)
        if header is None:
            raise RpcRefusal(f"there is no block {number}")
        return self._chain.get_vm(header).state

    def _payable(self) -> list[tuple[tuple[bytes, int], SignedTransactionAPI]]:
        """What can go into the next block: each sender's from its next nonce on without a gap, the
        highest tips first.
        """
        base_fee = self.base_fee()
        ready: list[tuple[int, int, tuple[bytes, int], SignedTransactionAPI]] = []
        for sender in {sender for sender, _ in self._waiting}:
            nonce = self.nonce(sender)
            # A later nonce goes no earlier than what its sender has before it.
            tip = 1 << 255
            while (
                found := self._waiting.get((sender, nonce))
            ) is not None and found.max_fee_per_gas >= base_fee:
                tip = min(tip, found.max_priority_fee_per_gas, found.max_fee_per_gas - base_fee)
                ready.append((-tip, nonce, (sender, nonce), found))
                nonce += 1
        return [
            (key, transaction)
            for _, _, key, transaction in sorted(ready, key=lambda entry: entry[:3])
        ]


def _outbids(new: SignedTransactionAPI, old: SignedTransactionAPI) -> bool:
    return all(
        getattr(new, fee) * 100 >= getattr(old, fee) * REPLACE_PERCENT
        for fee in ("max_fee_per_gas", "max_priority_fee_per_gas")
    )
