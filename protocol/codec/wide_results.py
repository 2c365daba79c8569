"""A codec whose means travel with more bits than its contributions.

A reducer keeps what encoding a mean lost, times the weight of all contributors, and adds it to its
own next offer. At 4 bits that is an eighth of the mean's length for each of them: from about 15
members on it exceeds the reducer's own work, and the clip would cut it off.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.averaging.clip import ClipPart, ClipScale, Doubles
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec.base import Codec
from protocol.codec.registry import codec_named
from protocol.digest import Buffer

# Up to this number of contributors, a mean may travel in the codec of its contributions.
NARROW_CONTRIBUTORS = 12
# Bits of an element, and the codec of means that would have fewer.
WIDE_BITS = 8
WIDE_CODEC = "int8"


class WideResults:
    """The codec `inner`, whose means travel in `result`."""

    def __init__(self, inner: Codec, result: Codec) -> None:
        self.inner, self._result = inner, result
        self.name, self.lossless = inner.name, inner.lossless

    @property
    def result(self) -> Codec:
        return self._result

    def size(self, elements: int) -> int:
        return self.inner.size(elements)

    def encode(self, values: Vector, over: float = 1.0) -> bytes:
        return self.inner.encode(values, over)

    def encode_into(self, values: Vector, over: float, out: memoryview) -> None:
        self.inner.encode_into(values, over, out)

    def check(self, data: Buffer, elements: int) -> None:
        self.inner.check(data, elements)

    def decode(self, data: Buffer, out: Vector) -> None:
        self.inner.decode(data, out)

    def add(self, data: Buffer, weight: float, out: Vector) -> None:
        self.inner.add(data, weight, out)

    def mean(self, parts: Sequence[tuple[int, Buffer]], out: Vector) -> None:
        self.inner.mean(parts, out)

    def clipped_mean(self, parts: Sequence[ClipPart], scale: ClipScale, out: Vector) -> Doubles:
        return self.inner.clipped_mean(parts, scale, out)


def with_results_for(codec: Codec, contributors: int) -> Codec:
    """Return `codec`, with means of at least 8 bits where so many contribute."""
    narrow = 8 * codec.result.size(CHUNK_ELEMENTS) < WIDE_BITS * CHUNK_ELEMENTS
    if not narrow or contributors <= NARROW_CONTRIBUTORS:
        return codec
    return WideResults(codec, codec_named(WIDE_CODEC))
