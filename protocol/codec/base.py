"""What a codec is, and the checks that all codecs share.

Encoders use only operations that IEEE 754 fixes to the bit (compare, add, multiply, divide, round
to integer) and integers, one numpy operation at a time: no transcendental function, no sum whose
order a processor chooses, no fused operation. So an encoding has the same bytes on every machine,
and a substitute reducer makes the bytes that the lost one would have made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from protocol.averaging.clip import ClipPart, ClipScale, Doubles
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
"""Magnitudes from here on are infinite or NaN."""


class Codec(Protocol):
    """How a float32 vector travels.

    Guarantees that all methods are pure functions of the values, the same on every machine. An
    encoding can be divided at chunk borders: a run of whole chunks encodes to the same bytes alone
    and within a vector. Encoding a decoded vector loses nothing more. Vectors are contiguous, shape
    (elements,), else `ValueError`. Methods that read an encoding raise `PeerFault("malformed")` for
    a wrong size, value, scale or index.
    """

    name: str
    lossless: bool

    @property
    def result(self) -> Codec:
        """The codec in which the mean of such vectors travels, usually the same one."""

    def size(self, elements: int) -> int:
        """Return the bytes of an encoding of `elements` elements that begin at a chunk border."""

    def encode(self, values: Vector, over: float = 1.0) -> bytes:
        """Encode `values` / `over`, a run of whole chunks whose last one may be short.

        Raises `ValueError` if a value is not finite: such a value must not leave the node.
        """

    def encode_into(self, values: Vector, over: float, out: memoryview) -> None:
        """Encode into memory of the right size.

        After a `ValueError` the contents of the memory are undefined.
        """

    def check(self, data: Buffer, elements: int) -> None:
        """Raise what decoding would raise, and write nothing."""

    def decode(self, data: Buffer, out: Vector) -> None:
        """Decode into `out`."""

    def add(self, data: Buffer, weight: float, out: Vector) -> None:
        """Add `weight` x the decoded vector to `out`, in float32.

        A negative weight subtracts the same values, bit by bit. If the encoding is refused, nothing
        is added.
        """

    def mean(self, parts: Sequence[tuple[int, Buffer]], out: Vector) -> None:
        """Write the mean of encoded `parts` (weight, data) to `out`.

        The mean is the sum that `protocol/averaging/reduction.py` defines, over the sum of the
        weights, which is not 0.
        """

    def clipped_mean(self, parts: Sequence[ClipPart], scale: ClipScale, out: Vector) -> Doubles:
        """Write the mean of clipped `parts` to `out` (`protocol/averaging/clip.py`).

        Each chunk of a part enters with float32(weight x factor). The sum of the weights is not 0.

        Returns:
            The sum of each part's factors over all chunks, shape (parts,).
        """


def check_size(data: Buffer, expected: int) -> None:
    """Raise `PeerFault("malformed")` for an encoding of another size."""
    if len(data) != expected:
        raise PeerFault("malformed", f"an encoding of {len(data)} bytes; {expected} are expected")


def check_room(out: memoryview, expected: int) -> None:
    """Raise `ValueError` if an encoding cannot be written to `out`."""
    if out.nbytes != expected or out.readonly or not out.c_contiguous:
        raise ValueError(
            f"{out.nbytes} bytes, {'read-only' if out.readonly else 'writable'}, for an "
            f"encoding of {expected}"
        )


def check_vector(vector: Vector, *, written: bool = False) -> None:
    """Raise `ValueError` unless a vector is contiguous float32 of shape (elements,).

    With `written` it must be writable too.
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
    """Return what a decoder raises for NaN or infinity."""
    return PeerFault("malformed", "an encoding with a value that is not finite")


def check_peak(peak: int, first: int) -> None:
    """Raise `ValueError` if the greatest magnitude of a piece is not finite.

    Args:
        peak: the greatest magnitude, as bits.
        first: the place of the piece's first element in the vector.
    """
    if peak >= INFINITE:
        raise ValueError(f"a value near element {first} is not finite, so it cannot be offered")
