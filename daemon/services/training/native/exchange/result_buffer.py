"""The result of every slice under one inclusion, as it arrived, with who signed it.

Results of a lossless codec are float32 on the wire. They are received into their places in one
vector and need not be decoded: the outer step reads the mean where it lies. A place is given out
once. A second stream that brings the same slice, and the rest of one that broke, receive other
memory: nothing may write where something was checked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np

from daemon.services.training.native.exchange.buffers import Buffers
from protocol.averaging.group_layout import GroupLayout
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector, element_range
from protocol.codec import Codec, chunk_bytes
from protocol.digest import EMPTY_ROOT, Buffer, Digest, merkle_root
from protocol.messages.base import Signed

EncodingLosses = list[tuple[int, Vector]]
"""What encoding lost of slices, as (first element, weight x (mean - decoded))."""

ReceivedResults = dict[int, tuple[Signed, Buffer]]
"""By slice: what its reducer signed, and the encoded mean."""


class ResultBuffer:
    """The results under one inclusion; without a layout, none at all."""

    def __init__(
        self, layout: GroupLayout | None, codec: Codec, parameters: int, buffers: Buffers
    ) -> None:
        """`codec` is the codec of the results."""
        self._codec, self._parameters, self._buffers = codec, parameters, buffers
        self._slices = layout.slices if layout is not None else ()
        self._missing = {
            i for i in range(len(self._slices)) if layout is not None and layout.finishes(i)
        }
        self._encoded: dict[int, Buffer] = {}
        self._roots: list[Digest] = [EMPTY_ROOT] * len(self._slices)
        self._signed: dict[int, Signed] = {}
        # Not in several groups: their sums are dropped slice by slice as results arrive, and a whole
        # vector beside them would need more than 3 vectors of memory.
        in_places = (
            layout is not None
            and len(layout.groups) == 1
            and codec.lossless
            and sys.byteorder == "little"
        )
        self._vector = buffers.acquire(codec.size(parameters)) if in_places else None
        self._given: dict[int, memoryview] = {}

    @property
    def complete(self) -> bool:
        """Whether the result of every finished slice has arrived."""
        return not self._missing

    def __contains__(self, index: int) -> bool:
        """Whether a slice needs no result any more."""
        return index not in self._missing

    def root(self) -> Digest:
        """The root over all results."""
        return merkle_root(self._roots)

    def memory(self, index: int) -> memoryview:
        """Memory for the encoded result of a slice: its place, unless that was given out."""
        start, stop = element_range(*self._slices[index], self._parameters)
        if self._vector is None or index in self._given:
            return self._buffers.acquire(self._codec.size(stop - start))
        self._given[index] = self._vector[self._codec.size(start) : self._codec.size(stop)]
        return self._given[index]

    def put(self, index: int, root: Digest, encoded: Buffer, signed: Signed | None) -> None:
        """Keep a result that was checked. `signed` is None for one that was made here."""
        self._missing.discard(index)
        self._encoded[index], self._roots[index] = encoded, root
        if signed is not None:
            self._signed[index] = signed

    def received(self) -> ReceivedResults:
        """The results that other members reduced."""
        return {index: (signed, self._encoded[index]) for index, signed in self._signed.items()}

    def mean(self, start: int, out: Vector) -> Vector:
        """Elements `[start, start + out.size)` of the mean, where they lie or decoded into `out`.

        Both ends are at the border of a chunk or at the vector's end.
        """
        there = self.vector(start, out.size)
        if there is not None:
            return there
        chunk = chunk_bytes(self._codec)
        for index in self._touched(start, out.size):
            first, last = element_range(*self._slices[index], self._parameters)
            since, until = max(first, start), min(last, start + out.size)
            skipped = (since - first) // CHUNK_ELEMENTS * chunk
            wanted = memoryview(self._encoded[index])[
                skipped : skipped + self._codec.size(until - since)
            ]
            self._codec.decode(wanted, out[since - start : until - start])
        return out

    def vector(self, start: int, size: int) -> Vector | None:
        """Elements `[start, start + size)` of the mean where they lie, unless they need decoding."""
        if self._vector is None or any(
            self._encoded[index] is not self._given.get(index)
            for index in self._touched(start, size)
        ):
            return None
        return np.frombuffer(self._vector, np.float32)[start : start + size]

    def _touched(self, start: int, size: int) -> Iterable[int]:
        """The results that have elements in `[start, start + size)`."""
        for index in self._encoded:
            first, last = element_range(*self._slices[index], self._parameters)
            if first < start + size and start < last:
                yield index
