"""The codecs that keep every element: float32 itself, and its halves float16 and bfloat16.

float16 is finer (11 bits of significand against 8) between 6e-5 and 65504, and loses everything
below 3e-8. It suits a run whose pseudo-gradients are known to lie there. bfloat16 has float32's
range. In numpy the float16 conversion handles one value at a time and takes six times as long as
compiled (`hypergpud bench codecs`).
"""

from __future__ import annotations

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.codec.base import INFINITE, MAGNITUDE, Bits16, Bits32, Bytes8, check_peak, not_finite
from protocol.codec.numpy_codec import NumpyCodec

_BFLOAT16_OVERFLOWS = 0x7F7F8000
"""Magnitudes from here on would round to infinity.

The largest finite bfloat16 is 0x7F7F.
"""

_FLOAT16_MAX = np.float32(65504.0)
_FLOAT16_MAX_BITS = 0x477FE000


def _peak(bits: Bits32, first: int) -> int:
    """Return the greatest magnitude of a piece, as bits.

    Raises `ValueError` if it is not finite. `first` is the place of the piece in the vector.
    """
    peak = int((bits & MAGNITUDE).max())
    check_peak(peak, first)
    return peak


def to_bfloat16(bits: Bits32, peak: int = INFINITE) -> Bits16:
    """Return the upper halves of float32 `bits`, rounded to nearest, ties to even.

    Values that would become infinite saturate. That is only possible if `peak` may overflow.
    """
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    if peak >= _BFLOAT16_OVERFLOWS:
        rounded -= (rounded & np.uint32(0x7F80)) == np.uint32(0x7F80)
    return rounded.astype(np.uint16)


def from_bfloat16(halves: Bits16) -> Vector:
    """Return the float32 of each bfloat16, in the same shape."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


class Float32(NumpyCodec):
    """Little-endian float32 as it is: 32 bits per element."""

    name = "float32"
    lossless = True

    def size(self, elements: int) -> int:
        return 4 * elements

    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        _peak(values.view(np.uint32), first)
        out.view("<f4")[:] = values

    def _decode(self, data: Bytes8, out: Vector) -> None:
        out[:] = data.view("<f4")
        if not np.isfinite(out).all():
            raise not_finite()


class BFloat16(NumpyCodec):
    """The upper half of a float32, rounded to nearest, ties to even.

    The largest finite values saturate instead of becoming infinite.
    """

    name = "bfloat16"

    def size(self, elements: int) -> int:
        return 2 * elements

    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        bits = values.view(np.uint32)
        out.view("<u2")[:] = to_bfloat16(bits, _peak(bits, first))

    def _decode(self, data: Bytes8, out: Vector) -> None:
        halves = data.view("<u2")
        if (halves & np.uint16(0x7F80)).max() == 0x7F80:
            raise not_finite()
        bits = out.view(np.uint32)
        bits[:] = halves
        bits <<= np.uint32(16)


class Float16(NumpyCodec):
    """IEEE half precision, rounded to nearest, ties to even.

    Magnitudes above 65504 saturate, and the ledger keeps the rest.
    """

    name = "float16"

    def size(self, elements: int) -> int:
        return 2 * elements

    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        if _peak(values.view(np.uint32), first) > _FLOAT16_MAX_BITS:
            values = np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX)
        out.view("<f2")[:] = values

    def _decode(self, data: Bytes8, out: Vector) -> None:
        halves = data.view("<f2")
        if (halves.view("<u2") & np.uint16(0x7C00)).max() == 0x7C00:
            raise not_finite()
        out[:] = halves
