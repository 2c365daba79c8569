"""Old empty blocks, kept as their times.

A devnet makes a block every 2 s, and nearly all of them are empty. Measured over 3,000 empty
blocks, py-evm's own format takes 44 MB a day. anvil's state file takes 76 MB a day; anvil keeps it
in memory and writes it only when it ends. This module takes 0.24 MB a day.

An empty block follows from its parent and its time: the state is the same, and the next base fee is
computed. For `SEGMENT` blocks, this module keeps how many seconds each came after its parent. The
first of them, and all with transactions, stay complete. A read computes the other headers again. A
header is dropped only if the header computed from its parent has the same hash.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
from eth.abc import BlockHeaderAPI
from eth.db.schema import SchemaV1

from contracts.devnet.store import SqliteStore

# Blocks that are packed together and made again together, which takes 0.1 s.
SEGMENT = 256
# The last blocks stay whole: BLOCKHASH looks back that far, and no reorganization goes deeper.
KEPT = 256
# Segments in memory, 10 MB. A search by time reads about as many.
MAX_CACHED = 16
NEXT_KEY = b"hypergpu/packed"
# Stands for a block that is kept whole. A block comes at least a second after its parent.
WHOLE = 0


class EmptyBlocks:
    """The packed blocks of one chain. The caller holds the devnet's lock and commits."""

    def __init__(self, store: SqliteStore, chain: Any) -> None:
        self._store, self._chain = store, chain
        # The first segment that is not packed.
        self._next = int(store[NEXT_KEY]) if store.exists(NEXT_KEY) else 0
        self._made: OrderedDict[int, list[BlockHeaderAPI]] = OrderedDict()

    def pack_one(self, head: int) -> None:
        """Pack the next segment that is old enough.

        The devnet packs one segment for each new block, so that a file that grew for weeks does not
        delay a block.
        """
        if (self._next + 1) * SEGMENT + KEPT > head:
            return
        first = self._next * SEGMENT
        parent = self._chain.get_canonical_block_header_by_number(first)
        after: list[int] = []
        for number in range(first + 1, first + SEGMENT):
            header = self._chain.get_canonical_block_header_by_number(number)
            seconds = header.timestamp - parent.timestamp
            after.append(seconds if self._following(parent, seconds).hash == header.hash else WHOLE)
            parent = header
            if after[-1] != WHOLE:
                del self._store[header.hash]
                del self._store[SchemaV1.make_block_hash_to_score_lookup_key(header.hash)]
                key = SchemaV1.make_block_number_to_hash_lookup_key(number)  # type: ignore[arg-type]
                del self._store[key]
        self._store[_key(self._next)] = msgspec.msgpack.encode(after)
        self._next += 1
        self._store[NEXT_KEY] = str(self._next).encode()

    def holds(self, number: int) -> bool:
        """Return whether block `number` is an empty block that was dropped."""
        segment, place = divmod(number, SEGMENT)
        return segment < self._next and place > 0 and self._after(segment)[place - 1] != WHOLE

    def header(self, number: int) -> BlockHeaderAPI | None:
        """Return the header of a dropped block; None for any other block."""
        if not self.holds(number):
            return None
        segment, place = divmod(number, SEGMENT)
        if segment not in self._made:
            self._made[segment] = self._make(segment)
            while len(self._made) > MAX_CACHED:
                self._made.popitem(last=False)
        self._made.move_to_end(segment)
        return self._made[segment][place]

    def _make(self, segment: int) -> list[BlockHeaderAPI]:
        headers = [self._chain.get_canonical_block_header_by_number(segment * SEGMENT)]
        for number, seconds in enumerate(self._after(segment), segment * SEGMENT + 1):
            whole = seconds == WHOLE
            headers.append(
                self._chain.get_canonical_block_header_by_number(number)
                if whole
                else self._following(headers[-1], seconds)
            )
        return headers

    def _following(self, parent: BlockHeaderAPI, seconds: int) -> BlockHeaderAPI:
        """Make the header of an empty block that comes `seconds` after its parent."""
        header = self._chain.create_header_from_parent(
            parent, timestamp=parent.timestamp + seconds, gas_limit=parent.gas_limit
        )
        return header.copy(state_root=parent.state_root)

    def _after(self, segment: int) -> list[int]:
        return msgspec.msgpack.decode(self._store[_key(segment)], type=list[int])


def _key(segment: int) -> bytes:
    return b"hypergpu/times:%d" % segment
