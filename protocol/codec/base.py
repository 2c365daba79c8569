"""What a codec is, and the checks that all of them share.

Encoders are made of operations that IEEE 754 fixes to the bit (compare, add, multiply, divide, round to integer) and of integers, one numpy
operation at a time: no transcendental function, no sum whose order a processor chooses, no fused operation. So the encoding, too, is the
same bytes on every machine, which is what lets a substitute reducer make the bytes that the lost one would have made.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from protocol.digest import Buffer
from protocol.errors import PeerFault
from protocol.layout import CHUNK_ELEMENTS
from protocol.ports import Vector

Bytes8 = npt.NDArray[np.uint8]
Bits16 = npt.NDArray[np.uint16]
Bits32 = npt.NDArray[np.uint32]

PIECE_CHUNKS = 32
"""Chunks that an encoder or decoder works on at a time: 512 KiB of float32 and its scratch stay in cache. int8 encodes 10 million elements in
8 ms so, in 14 ms all at once, and in 18 ms by 4 chunks, where what numpy spends on each call counts."""

PIECE_ELEMENTS = PIECE_CHUNKS * CHUNK_ELEMENTS

MAGNITUDE = np.uint32(0x7FFFFFFF)
"""All bits of a float32 but the sign. What is left orders as the magnitudes do, and the unsigned maximum of a block is found three times as
fast as the float's, which has NaNs to look for."""

INFINITE = 0x7F800000
"""Magnitudes from here on are no numbers."""


class Codec(Protocol):
    """How a float32 vector travels.

    Guarantees: `encode` and `decode` are pure functions of the values, the same on every machine; an encoding can be cut at chunk borders, and
    a run of whole chunks encodes to the same bytes alone as within a vector; encoding a decoded vector loses nothing more.
    """

    name: str
    lossless: bool

    @property
    def result(self) -> Codec:
        """The codec of the mean of vectors that came in this one. Most often the same."""

    def size(self, elements: int) -> int:
        """Bytes of an encoding of `elements` elements that begin at a chunk border."""

    def encode(self, values: Vector) -> bytes:
        """Encode a run of whole chunks (the last one may be short). Raises `ValueError` when a value is not finite: it must not leave the node."""

    def decode(self, data: Buffer, out: Vector) -> None:
        """Decode into `out`, which is contiguous. Raises `PeerFault("malformed")` for a wrong size, value, scale or index."""


def check_size(data: Buffer, expected: int) -> None:
    """Raises `PeerFault("malformed")`."""
    if len(data) != expected:
        raise PeerFault("malformed", f"an encoding of {len(data)} bytes where {expected} belong")


def not_finite() -> PeerFault:
    """What a decoder raises on meeting NaN or infinity."""
    return PeerFault("malformed", "an encoding with a value that is not finite")


def check_peak(peak: int, first: int) -> None:
    """`peak` is the greatest magnitude, as bits, among elements of which `first` is the first. Raises `ValueError` when it is no number."""
    if peak >= INFINITE:
        raise ValueError(f"a value near element {first} is not finite: it cannot be offered to anybody")


def check_encoding(codec: Codec, data: Buffer, elements: int) -> None:
    """Whether an encoding of `elements` elements, from a chunk border on, decodes. Raises `PeerFault("malformed")`. Allocates a piece at most."""
    check_size(data, codec.size(elements))
    view = memoryview(data)
    scratch = np.empty(min(elements, PIECE_ELEMENTS), np.float32)
    for start in range(0, elements, PIECE_ELEMENTS):
        piece = scratch[: min(PIECE_ELEMENTS, elements - start)]
        codec.decode(view[codec.size(start) : codec.size(start + piece.size)], piece)
