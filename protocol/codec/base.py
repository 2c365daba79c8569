"""What a codec is, and the checks that all of them share.

Encoders are made of operations that IEEE 754 fixes to the bit (compare, add, multiply, divide,
round to integer) and of integers, one numpy operation at a time: no transcendental function, no sum
whose order a processor chooses, no fused operation. So the encoding, too, is the same bytes on
every machine, which is what lets a substitute reducer make the bytes that the lost one would have
made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from protocol.averaging.vector_layout import Vector
from protocol.digest import Buffer
from protocol.errors import PeerFault

Bytes8 = npt.NDArray[np.uint8]
Bits16 = npt.NDArray[np.uint16]
Bits32 = npt.NDArray[np.uint32]

MAGNITUDE = np.uint32(0x7FFFFFFF)
"""The mask that drops the sign of a float32.

The remaining bits order as the magnitudes do. The unsigned maximum of a block is found three times
as fast as the float maximum, which has to look for NaNs.
"""

INFINITE = 0x7F800000
"""Magnitudes from here on are no numbers."""


class Codec(Protocol):
    """How a float32 vector travels.

    Guarantees: all of it are pure functions of the values, the same on every machine; an encoding
    can be cut at chunk borders, and a run of whole chunks encodes to the same bytes alone as within
    a vector; encoding a decoded vector loses nothing more. Vectors are contiguous, shape
    (elements,), else `ValueError`. Whatever reads an encoding raises `PeerFault("malformed")` for a
    wrong size, value, scale or index.
    """

    name: str
    lossless: bool

    @property
    def result(self) -> Codec:
        """The codec of the mean of vectors that came in this one. Most often the same."""

    def size(self, elements: int) -> int:
        """Bytes of an encoding of `elements` elements that begin at a chunk border."""

    def encode(self, values: Vector, over: float = 1.0) -> bytes:
        """Encode `values` / `over`, a run of whole chunks (the last one may be short).

        Raises `ValueError` when a value is not finite: it must not leave the node.
        """

    def encode_into(self, values: Vector, over: float, out: memoryview) -> None:
        """As `encode`, into memory of the right size; what it holds after `ValueError` is worth
        nothing.
        """

    def check(self, data: Buffer, elements: int) -> None:
        """Raises what decoding would raise, and writes nothing."""

    def decode(self, data: Buffer, out: Vector) -> None:
        """Decode into `out`."""

    def add(self, data: Buffer, weight: float, out: Vector) -> None:
        """`out` += `weight` x decoded, in float32; with a negative weight it is taken away, to the
        same bit.

        Nothing is added when it is refused.
        """

    def mean(self, parts: Sequence[tuple[int, Buffer]], out: Vector) -> None:
        """The sum of `parts` that `protocol/averaging/reduction.py` defines, over the sum of their
        weights, which is not 0, into `out`.
        """


def check_size(data: Buffer, expected: int) -> None:
    """Raises `PeerFault("malformed")`."""
    if len(data) != expected:
        raise PeerFault("malformed", f"an encoding of {len(data)} bytes where {expected} belong")


def check_room(out: memoryview, expected: int) -> None:
    """Raises `ValueError` when an encoding cannot be written there."""
    if out.nbytes != expected or out.readonly or not out.c_contiguous:
        raise ValueError(
            f"{out.nbytes} bytes, {'read-only' if out.readonly else 'writable'}, for an "
            f"encoding of {expected}"
        )


def check_vector(vector: Vector, *, written: bool = False) -> None:
    """Raises `ValueError` for what a codec cannot walk over: it works on contiguous float32 of
    shape (elements,).
    """
    if (
        vector.dtype != np.float32
        or vector.ndim != 1
        or not vector.flags.c_contiguous
        or (written and not vector.flags.writeable)
    ):
        raise ValueError(
            f"a codec works on contiguous float32, not on {vector.dtype} of shape "
            f"{vector.shape} with {vector.strides} strides"
        )


def not_finite() -> PeerFault:
    """What a decoder raises on meeting NaN or infinity."""
    return PeerFault("malformed", "an encoding with a value that is not finite")


def check_peak(peak: int, first: int) -> None:
    """`peak` is the greatest magnitude, as bits, among elements of which `first` is the first.

    Raises `ValueError` when it is no number.
    """
    if peak >= INFINITE:
        raise ValueError(
            f"a value near element {first} is not finite: it cannot be offered to anybody"
        )
