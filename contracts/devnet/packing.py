"""Old empty blocks, kept as their times: at a block every 2 s they would be 34 MB a day, of which
nothing is worth reading.

An empty block follows from its parent and its time: the same state, the next base fee. So of
`SEGMENT` blocks it is written how many seconds each came after its parent; the first of them, and
all with transactions, stay whole, and the headers between are made again when somebody asks. A
header is only dropped when the one that was made from its parent has the same hash.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
from eth.abc import BlockHeaderAPI
from eth.db.schema import SchemaV1

from contracts.devnet.store import SqliteStore

# Blocks that are packed together, and made again together: 0.1 s.
SEGMENT = 256
# The last ones stay whole: BLOCKHASH looks back as far, and a reorganization goes no deeper.
KEPT = 256
# Segments that were made again: 10 MB, and a search by time asks for as many.
MOST_REMEMBERED = 16
NEXT_KEY = b"hypergpu/packed"
# In place of the seconds of a block that is kept; a block comes at least one after its parent.
WHOLE = 0


class EmptyBlocks:
    """The packed part of one chain. Whoever uses it holds the devnet's lock, and commits."""

    def __init__(self, store: SqliteStore, chain: Any) -> None:
        self._store, self._chain = store, chain
        # The first segment that is not packed.
        self._next = int(store[NEXT_KEY]) if store.exists(NEXT_KEY) else 0
        self._made: OrderedDict[int, list[BlockHeaderAPI]] = OrderedDict()

    def pack_one(self, head: int) -> None:
        """Pack the next segment that is old enough: one for each block that is made, so that a file
        which grew for weeks holds up nobody.
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
                del self._store[SchemaV1.make_block_number_to_hash_lookup_key(number)]
        self._store[_key(self._next)] = msgspec.msgpack.encode(after)
        self._next += 1
        self._store[NEXT_KEY] = str(self._next).encode()

    def holds(self, number: int) -> bool:
        """Whether block `number` is an empty one that was dropped."""
        segment, place = divmod(number, SEGMENT)
        return segment < self._next and place > 0 and self._after(segment)[place - 1] != WHOLE

    def header(self, number: int) -> BlockHeaderAPI | None:
        """As it was; None for one that was never dropped."""
        if not self.holds(number):
            return None
        segment, place = divmod(number, SEGMENT)
        if segment not in self._made:
            self._made[segment] = self._make(segment)
            while len(self._made) > MOST_REMEMBERED:
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
        """The header of an empty block so many seconds after its parent."""
        header = self._chain.create_header_from_parent(
            parent, timestamp=parent.timestamp + seconds, gas_limit=parent.gas_limit
        )
        return header.copy(state_root=parent.state_root)

    def _after(self, segment: int) -> list[int]:
        return msgspec.msgpack.decode(self._store[_key(segment)], type=list[int])


def _key(segment: int) -> bytes:
    return b"hypergpu/times:%d" % segment
