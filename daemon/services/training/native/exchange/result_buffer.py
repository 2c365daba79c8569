"""Holds the result of every slice under one inclusion, with its signature.

Results of a lossless codec are float32 on the wire. They are received into their places in one
vector and need no decoding: the outer step reads the mean in place. Each place is used once. A
second stream with the same slice receives into other memory, and so does a stream that was
reopened: nothing may write to memory that was checked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from daemon.services.training.native.exchange.buffers import Buffers
from protocol.averaging.encoded_mean import EncodedMean
from protocol.averaging.group_layout import GroupLayout
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector, element_range
from protocol.codec import Codec, chunk_bytes
from protocol.digest import EMPTY_ROOT, Buffer, Digest, merkle_root
from protocol.messages.base import Signed

EncodingLosses = list[tuple[int, Vector]]
"""What encoding lost of slices, as (first element, weight x (mean - decoded))."""


class OwnSums(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of the sums that this node made for a certificate."""

    losses: EncodingLosses = []
    # Which share of each contribution the clip left there, by member of the plan; empty where
    # nothing is clipped.
    kept: Mapping[int, float] = {}


ReceivedResults = dict[int, tuple[Signed, Buffer]]
"""By slice: the message that its reducer signed, and the encoded mean."""


class ResultBuffer:
    """The results under one inclusion. Without a layout there are none."""

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
        # A plan of several groups has no places. It drops the groups' sums slice by slice as
        # results arrive, and a whole vector beside the sums would need more than 3 vectors of
        # memory.
        in_place = (
            layout is not None
            and len(layout.groups) == 1
            and codec.lossless
            and sys.byteorder == "little"
        )
        self._vector = buffers.acquire(codec.size(parameters)) if in_place else None
        self._given: dict[int, memoryview] = {}

    @property
    def complete(self) -> bool:
        """Whether the result of every finished slice has arrived."""
        return not self._missing

    def __contains__(self, index: int) -> bool:
        """Whether a slice has its result, or needs none."""
        return index not in self._missing

    def root(self) -> Digest:
        """Return the root over all results."""
        return merkle_root(self._roots)

    def memory(self, index: int) -> memoryview:
        """Return memory for the encoded result of a slice: its place on the first call."""
        start, stop = element_range(*self._slices[index], self._parameters)
        if self._vector is None or index in self._given:
            return self._buffers.acquire(self._codec.size(stop - start))
        self._given[index] = self._vector[self._codec.size(start) : self._codec.size(stop)]
        return self._given[index]

    def put(self, index: int, root: Digest, encoded: Buffer, signed: Signed | None) -> None:
        """Keep a result that was checked. `signed` is None for a result of this node."""
        self._missing.discard(index)
        self._encoded[index], self._roots[index] = encoded, root
        if signed is not None:
            self._signed[index] = signed

    def forget(self) -> None:
        """Drop all memory: these results are of another inclusion."""
        self._vector = None
        self._given.clear()
        self._encoded.clear()
        self._signed.clear()

    def received(self) -> ReceivedResults:
        """Return the results that other members reduced."""
        return {index: (signed, self._encoded[index]) for index, signed in self._signed.items()}

    def encoded(self) -> EncodedMean:
        """Return the encoding of the whole mean. It keeps the memory of the results in use."""
        return EncodedMean(
            self._codec,
            (
                (element_range(*self._slices[index], self._parameters)[0], data)
                for index, data in self._encoded.items()
            ),
        )

    def mean(self, start: int, out: Vector) -> Vector:
        """Return elements `[start, start + out.size)` of the mean, in place or decoded into `out`.

        Each end is at the border of a chunk or at the vector's end.
        """
        in_place = self.vector(start, out.size)
        if in_place is not None:
            return in_place
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
        """Return elements `[start, start + size)` of the mean; None if they need decoding."""
        if self._vector is None or any(
            self._encoded[index] is not self._given.get(index)
            for index in self._touched(start, size)
        ):
            return None
        return np.frombuffer(self._vector, np.float32)[start : start + size]

    def _touched(self, start: int, size: int) -> Iterable[int]:
        """Yield the slices that have elements in `[start, start + size)`."""
        for index in self._encoded:
            first, last = element_range(*self._slices[index], self._parameters)
            if first < start + size and start < last:
                yield index
