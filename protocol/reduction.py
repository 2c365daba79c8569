"""The sum: a pure function of layout and Cut. The same contributions in the same order give the same bytes on every node.

weight x value, added in the plan's member order in float32, divided by the included weight. A reducer and its substitute therefore make
the same bytes, and anybody who holds the contributions can check them.

Each codec sums what it encoded (`Codec.mean`), so that a piece of the sum stays in cache while all contributions are added to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.codec import Codec
from protocol.codec.base import check_size
from protocol.digest import Buffer
from protocol.ports import Vector


def weighted_mean(parts: Iterable[tuple[int, Buffer]], codec: Codec, out: Vector) -> int:
    """The mean of the encoded `parts`, each (weight in samples, encoding of exactly `out.size` elements), in the order given.

    Writes the float32 mean to `out`, shape (elements of the slice,), and returns the included weight. All zeros when nothing has weight. The
    mean is finite always: where contributions are too great for float32 it is float32's end, or zero where both ends meet, on every node alike.
    Raises `PeerFault` when an encoding does not decode.
    """
    encodings = list(parts)
    for _, data in encodings:
        check_size(data, codec.size(out.size))
    total = sum(weight for weight, _ in encodings)
    if total:
        codec.mean(encodings, out)
    else:
        for _, data in encodings:
            codec.check(data, out.size)
        out[:] = 0.0
    return total
