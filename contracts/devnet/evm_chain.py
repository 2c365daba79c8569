"""A chain on py-evm: its blocks, its state, and calls that change nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from eth.abc import BlockAPI, BlockHeaderAPI, ReceiptAPI
from eth.db.atomic import AtomicDB
from eth.estimators.gas import binary_gas_search_1000_tolerance
from eth.exceptions import HeaderNotFound, TransactionNotFound
from eth.vm.spoof import SpoofTransaction
from eth_utils import ValidationError

from contracts.devnet.empty_blocks import EmptyBlocks
from contracts.devnet.genesis_block import chain_class, first_header, first_state
from contracts.devnet.reverts import RpcRefusal, refused
from contracts.devnet.store import SqliteStore

GENESIS_KEY = b"hypergpu/genesis"
OFFSET_KEY = b"hypergpu/offset"
Hash = bytes


class MinedTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction in a block of the canonical chain.

    `receipt` is py-evm's, whose gas counts the block's transactions before it, too.
    """

    block: Any
    index: int
    transaction: Any
    receipt: Any
    gas: int
    first_log: int


class EvmChain:
    """The readable part of a devnet. Thread-safe: every method holds the lock."""

    def __init__(
        self, genesis: dict[str, Any], store: SqliteStore, now: Callable[[], float]
    ) -> None:
        """Open the chain in `store`, or begin one there.

        Raises `ValueError` if the stored chain began with another genesis.
        """
        self.lock = threading.RLock()
        self.chain_id = int(genesis["config"]["chainId"])
        self._store = store
        self._now = now
        kind = chain_class(self.chain_id)
        written = msgspec.json.encode(genesis, order="sorted")
        if store.exists(GENESIS_KEY):
            if store[GENESIS_KEY] != written:
                raise ValueError("the stored chain began with another genesis")
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
        """Yield the blocks with transactions from `first` to `last`, both included."""
        for number in range(first, last + 1):
            with self.lock:
                if self._empty.holds(number) or (block := self.block(number)) is None:
                    continue
            if block.transactions:
                yield block

    def number_of(self, block_hash: Hash) -> int | None:
        """Return the number of a block of the canonical chain.

        The hashes of old empty blocks are not kept, so they are not found.
        """
        with self.lock:
            try:
                number = self._chain.get_block_header_by_hash(block_hash).block_number
            except HeaderNotFound:
                return None
            header = self.header(number)
            return number if header is not None and header.hash == block_hash else None

    def included(self, transaction_hash: Hash) -> MinedTransaction | None:
        with self.lock:
            return self._included(transaction_hash)

    def _included(self, transaction_hash: Hash) -> MinedTransaction | None:
        try:
            number, index = self._chain.get_canonical_transaction_index(transaction_hash)
            block = self.block(number)
        except TransactionNotFound:
            return None
        # The index outlives a reorganization, so look into the canonical block itself.
        if (
            block is None
            or index >= len(block.transactions)
            or block.transactions[index].hash != transaction_hash
        ):
            return None
        return list(self.receipts(block))[index]

    def receipts(self, block: BlockAPI) -> Iterator[MinedTransaction]:
        """Yield the transactions of a block, in order."""
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

    def nonce(self, account: bytes, number: int | None = None) -> int:
        """Return how many transactions of an account are in the chain up to block `number`."""
        with self.lock:
            return int(self._state(number).get_nonce(account))

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
        """Return what a call would return in the next block, or at the end of block `number`.

        Raises `RpcRefusal`.
        """
        with self.lock:
            computation = self._execute(self._spoofed(sender, to, data, value, gas), number)
            if computation.is_error:
                raise refused(computation.error, computation.output)
            return bytes(computation.output)

    def estimate(self, *, sender: bytes, to: bytes, data: bytes, value: int) -> int:
        """Return an amount of gas with which a call succeeds in the next block.

        The amount is seldom more than 2% too large. Raises `RpcRefusal` if no amount is enough.
        """
        with self.lock:
            if self.balance(sender) < value:
                raise RpcRefusal("insufficient funds for transfer")
            most = self._spoofed(sender, to, data, value, self.head.gas_limit)
            computation = self._execute(most, None)
            if computation.is_error:
                raise refused(computation.error, computation.output)
            used = most.intrinsic_gas + computation.get_gas_used()
            # Each inner call holds back a 64th of its gas (EIP-150).
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
        """Return a temporary state in which gas costs nothing.

        py-evm has such a state, too, but takes the block's time from the wall clock.
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
        """Return the base fee of the block after the head."""
        with self.lock:
            return base_fee_of(self._next_header())

    def _next_header(self) -> BlockHeaderAPI:
        head = self.head
        # The gas limit stays. By default, py-evm lowers it, as miners' votes once did.
        at_s = max(head.timestamp + 1, int(self._now()) + self._offset_s)
        return self._chain.create_header_from_parent(head, timestamp=at_s, gas_limit=head.gas_limit)

    def _state(self, number: int | None) -> Any:
        header = self.head if number is None else self.header(number)
        if header is None:
            raise RpcRefusal(f"there is no block {number}")
        return self._chain.get_vm(header).state

    def close(self) -> None:
        with self.lock:
            self._store.close()


def base_fee_of(header: BlockHeaderAPI) -> int:
    """Return the base fee of a block. Every block of the devnet has one (London and later)."""
    fee = header.base_fee_per_gas
    assert fee is not None
    return int(fee)
