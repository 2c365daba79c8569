"""The sum: a pure function of layout and Cut. The same contributions in the same order give the same bytes on every node.

weight x value, added in the plan's member order in float32, divided by the included weight. A reducer and its substitute therefore make
the same bytes, and anybody who holds the contributions can check them.

The vector is summed piece by piece, all contributions of one before the next, so that the sum stays in cache.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from protocol.codec import Codec
from protocol.codec.base import PIECE_ELEMENTS, check_size
from protocol.digest import Buffer
from protocol.ports import Vector

_LARGEST = float(np.finfo(np.float32).max)


def weighted_mean(parts: Iterable[tuple[int, Buffer]], codec: Codec, out: Vector) -> int:
    """The mean of the encoded `parts`, each (weight in samples, encoding of exactly `out.size` elements), in the order given.

    Writes the float32 mean to `out`, shape (elements of the slice,), and returns the included weight. All zeros when there is no part. The
    mean is finite always: where contributions are too great for float32 it is float32's end, or zero where both ends meet, on every node alike.
    Raises `PeerFault` when an encoding does not decode.
    """
    encodings = [(weight, memoryview(data)) for weight, data in parts]
    total = sum(weight for weight, _ in encodings)
    for _, data in encodings:
        check_size(data, codec.size(out.size))
    value = np.empty(min(out.size, PIECE_ELEMENTS), np.float32)
    for start in range(0, out.size, PIECE_ELEMENTS):
        piece = out[start : start + PIECE_ELEMENTS]
        first, last = codec.size(start), codec.size(start + piece.size)
        _sum([(weight, data[first:last]) for weight, data in encodings], codec, value[: piece.size], piece)
        if total:
            np.divide(piece, np.float32(total), out=piece)
        if not np.isfinite(piece).all():
            np.nan_to_num(piece, copy=False, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST)
    return total


def _sum(encodings: list[tuple[int, memoryview]], codec: Codec, value: Vector, out: Vector) -> None:
    out[:] = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # what a peer sends may overflow: looked for once, in the mean
        for weight, data in encodings:
            codec.decode(data, value)
            np.multiply(value, np.float32(weight), out=value)
            np.add(out, value, out=out)
