"""Codecs: how a float32 vector travels. Every decoder is exact numpy, the same values on every machine.

A codec works chunk by chunk (`protocol.layout.CHUNK_ELEMENTS`), so any run of chunks can be cut out of an encoding, checked and decoded
by itself. Lossy codecs are used with error feedback: what an encoding lost stays in its owner's ledger (`protocol/ledger.py`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from protocol.digest import Buffer
from protocol.errors import PeerFault, UserError
from protocol.layout import CHUNK_ELEMENTS
from protocol.ports import Vector


class Codec(Protocol):
    """Guarantees: `decode` of `encode` is a pure function of the values; `encode` of a decoded vector gives the same bytes again."""

    name: str
    lossless: bool

    def size(self, elements: int) -> int:
        """Bytes of an encoding of `elements` elements that begin at a chunk border."""

    def encode(self, values: Vector) -> bytes:
        """Encode a run of whole chunks (the last one may be short). Values must be finite."""

    def decode(self, data: Buffer, out: Vector) -> None:
        """Decode into `out`. Raises `PeerFault("malformed")` when the size is wrong or a value is not finite."""


def _check(data: Buffer, expected: int) -> None:
    if len(data) != expected:
        raise PeerFault("malformed", f"an encoding of {len(data)} bytes where {expected} belong")


def _check_finite(values: Vector) -> None:
    # A float64 sum of float32 values cannot overflow, and one value that is not finite makes the sum so: one pass, no temporary.
    with np.errstate(invalid="ignore"):  # the sum of both infinities is what is looked for, not worth a warning
        total = values.sum(dtype=np.float64)
    if not np.isfinite(total):
        raise PeerFault("malformed", "an encoding with a value that is not finite")


class Float32:
    """Little-endian float32 as it is."""

    name = "float32"
    lossless = True

    def size(self, elements: int) -> int:
        return 4 * elements

    def encode(self, values: Vector) -> bytes:
        return values.astype("<f4", copy=False).tobytes()

    def decode(self, data: Buffer, out: Vector) -> None:
        _check(data, 4 * out.size)
        out[:] = np.frombuffer(data, "<f4")
        _check_finite(out)


class BFloat16:
    """The upper half of a float32, rounded to nearest, ties to even; the largest finite values saturate instead of becoming infinite."""

    name = "bfloat16"
    lossless = False

    def size(self, elements: int) -> int:
        return 2 * elements

    def encode(self, values: Vector) -> bytes:
        bits = values.astype("<f4", copy=False).view(np.uint32)
        rounded = (bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
        infinite = (rounded & np.uint32(0x7F80)) == np.uint32(0x7F80)
        rounded -= infinite.astype(np.uint32)  # 0x7F80 is infinity, 0x7F7F the largest finite value
        return rounded.astype("<u2").tobytes()

    def decode(self, data: Buffer, out: Vector) -> None:
        _check(data, 2 * out.size)
        np.left_shift(np.frombuffer(data, "<u2"), np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)
        _check_finite(out)


CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float32(), BFloat16())}


def codec_named(name: str) -> Codec:
    """Raises `UserError("CODEC")` with the known names."""
    try:
        return CODECS[name]
    except KeyError:
        raise UserError(
            "CODEC", f"The run's codec {name!r} is not known to this version; known: {', '.join(CODECS)}.", exit_code=2
        ) from None


def chunk_bytes(codec: Codec) -> int:
    """Bytes of one whole chunk: the leaf size of a contribution's digest."""
    return codec.size(CHUNK_ELEMENTS)
