"""The sum: a pure function of layout and Cut. The same contributions in the same order give the same bytes on every node.

weight x value, added in the plan's member order in float32, divided by the included weight. A reducer and its substitute therefore make
the same bytes, and anybody who holds the contributions can check them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from protocol.codec import Codec
from protocol.digest import Buffer
from protocol.ports import Vector


def weighted_mean(parts: Iterable[tuple[int, Buffer]], codec: Codec, out: Vector) -> int:
    """The mean of the encoded `parts`, each (weight in samples, encoding of exactly `out.size` elements), in the order given.

    Writes the float32 mean to `out`, shape (elements of the slice,), and returns the included weight. All zeros when there is no part.
    Raises `PeerFault` when an encoding does not decode.
    """
    value = np.empty_like(out)
    total = 0
    out[:] = 0.0
    for weight, data in parts:
        codec.decode(data, value)
        np.multiply(value, np.float32(weight), out=value)
        np.add(out, value, out=out)
        total += weight
    if total:
        np.divide(out, np.float32(total), out=out)
    return total
