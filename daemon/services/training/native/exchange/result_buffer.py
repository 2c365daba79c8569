"""What is known of every slice under one cut: its result, as it came, and who signed it.

Results of a lossless codec are float32 as they travel. They are received into their places in one
vector, so that they need not be decoded: whoever steps over the mean reads it where it lies. A
place is given out once. A second lane that brings the same slice, and the rest of one that broke,
gets memory of its own: nothing may write where something was checked.
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
    """The results under one cut, or none at all before the first."""

    def __init__(
        self, layout: GroupLayout | None, codec: Codec, parameters: int, buffers: Buffers
    ) -> None:
        """`codec` is that of the results."""
        self._codec, self._parameters, self._buffers = codec, parameters, buffers
        self._slices = layout.slices if layout is not None else ()
        self._missing = {
            i for i in range(len(self._slices)) if layout is not None and layout.finishes(i)
        }
        self._encoded: dict[int, Buffer] = {}
        self._roots: list[Digest] = [EMPTY_ROOT] * len(self._slices)
        self._signed: dict[int, Signed] = {}
        # Not in several rows: their sums are let go slice by slice as results come, and a whole
        # vector beside them would make it more than 3.
        in_places = (
            layout is not None
            and len(layout.groups) == 1
            and codec.lossless
            and sys.byteorder == "little"
        )
        self._vector = buffers.take(codec.size(parameters)) if in_places else None
        self._given: dict[int, memoryview] = {}  # slice to its place in the vector

    @property
    def complete(self) -> bool:
        """Whether every slice that somebody finishes has its result here."""
        return not self._missing

    def __contains__(self, index: int) -> bool:
        """Whether nothing is wanted for a slice any more."""
        return index not in self._missing

    def root(self) -> Digest:
        """Over all results."""
        return merkle_root(self._roots)

    def memory(self, index: int) -> memoryview:
        """Where the encoded result of a slice may be put: in its place, if nobody has that."""
        start, stop = element_range(*self._slices[index], self._parameters)
        if self._vector is None or index in self._given:
            return self._buffers.take(self._codec.size(stop - start))
        self._given[index] = self._vector[self._codec.size(start) : self._codec.size(stop)]
        return self._given[index]

    def put(self, index: int, root: Digest, encoded: Buffer, signed: Signed | None) -> None:
        """A result that was checked, or made here (`signed` by nobody else)."""
        self._missing.discard(index)
        self._encoded[index], self._roots[index] = encoded, root
        if signed is not None:
            self._signed[index] = signed

    def received(self) -> ReceivedResults:
        """Slice to what its reducer signed and the encoded mean, of those that others reduced."""
        return {index: (signed, self._encoded[index]) for index, signed in self._signed.items()}

    def mean(self, start: int, out: Vector) -> Vector:
        """Elements `[start, start + out.size)` of the mean, both ends at a chunk border or the
        vector's end, where they lie or decoded into `out`.
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
        """Elements `[start, start + size)` of the mean where they lie, if they need not be decoded."""
        if self._vector is None or any(
            self._encoded[index] is not self._given.get(index)
            for index in self._touched(start, size)
        ):
            return None
        return np.frombuffer(self._vector, np.float32)[start : start + size]

    def _touched(self, start: int, size: int) -> Iterable[int]:
        """Slices that have elements there."""
        for index in self._encoded:
            first, last = element_range(*self._slices[index], self._parameters)
            if first < start + size and start < last:
                yield index
