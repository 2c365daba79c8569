"""The codecs under test, and values to encode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from protocol.averaging.vector_layout import Vector
from protocol.codec import Codec, CodecEntry, codec_named, entries
from protocol.codec.base import Bytes8, check_peak, not_finite
from protocol.codec.numpy_codec import NumpyCodec


class Float24(NumpyCodec):
    """A codec that no run uses: the upper three bytes of every float32.

    The tests register it at run time, as the author of a new codec would, and run the property
    suite on it.
    """

    name = "float24"

    def size(self, elements: int) -> int:
        return 3 * elements

    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        bits = values.view(np.uint32)
        check_peak(int((bits & np.uint32(0x7FFFFFFF)).max()), first)
        out.reshape(-1, 3)[:] = bits.astype("<u4").view(np.uint8).reshape(-1, 4)[:, 1:]

    def _decode(self, data: Bytes8, out: Vector) -> None:
        whole = np.zeros((out.size, 4), np.uint8)
        whole[:, 1:] = data.reshape(-1, 3)
        out[:] = whole.reshape(-1).view("<f4")
        if not np.isfinite(out).all():
            raise not_finite()


class UpperByte(NumpyCodec):
    """A codec that no run uses: the upper byte of every float16, so one byte for one element."""

    name = "upper_byte"

    def size(self, elements: int) -> int:
        return elements

    def _encode(self, values: Vector, first: int, out: Bytes8) -> None:
        check_peak(int((values.view(np.uint32) & np.uint32(0x7FFFFFFF)).max()), first)
        halves = np.clip(values, np.float32(-57344), np.float32(57344)).astype("<f2")
        out[:] = halves.view(np.uint8).reshape(-1, 2)[:, 1]

    def _decode(self, data: Bytes8, out: Vector) -> None:
        if (data & np.uint8(0x7C)).max() == 0x7C:
            raise not_finite()
        out[:] = (data.astype("<u2") << np.uint16(8)).view("<f2")


FLOAT24 = CodecEntry(
    reference=Float24(), description="the upper three bytes of a float32", max_error=2.0**-15
)

REGISTERED = {entry.name: codec_named(entry.name) for entry in entries()}
REFERENCES = {entry.name: entry.reference for entry in entries()}
# topk's means travel in another codec.
USED = {**REGISTERED, "topk_result": REGISTERED["topk"].result}
SUITE = {**USED, "float24": FLOAT24.reference, "upper_byte": UpperByte()}

EVERY = pytest.mark.parametrize("codec", SUITE.values(), ids=SUITE)
EVERY_REGISTERED = pytest.mark.parametrize("codec", REGISTERED.values(), ids=REGISTERED)

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
EDGES = [
    0.0,
    -0.0,
    1.0,
    1.00390625,
    1.01171875,
    3.3895314e38,
    3.4e38,
    3.4028235e38,
    1e-45,
    1.1754944e-38,
    9.2e-41,
    2**-133,
]
VALUES = st.lists(FLOATS | st.sampled_from(EDGES + [-edge for edge in EDGES]), max_size=70).map(
    lambda values: np.array(values, np.float32)
)


def decoded(codec: Codec, data: bytes, size: int) -> Vector:
    """Decode an encoding of `size` elements."""
    out = np.full(size, np.nan, np.float32)
    codec.decode(data, out)
    return out
