"""The flat parameter vector: its type, its chunks, and its division among reducers.

A chunk is the common unit: a leaf of a contribution's digest, a whole number of every codec's
blocks, and the places where a slice may begin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""A flat float32 vector, shape (parameters,)."""

CHUNK_ELEMENTS = 4096
"""The elements of one chunk.

A multiple of every codec's block (256 for int8, 64 for int4, 4096 for top-k). 16 KiB of float32
hash at full speed, and the smallest shipped model still has more chunks than a demo has members.
"""

STATE_CHUNK_BYTES = 1 << 18
"""The bytes of one leaf of the state's digest, and of one piece of a download.

They take one second of a 2 Mbit/s uplink.
"""

MAX_PARAMETERS = 1 << 32
"""The longest vector: 16 GiB of float32, above what one consumer card trains."""


def chunk_count(parameters: int) -> int:
    """Count the chunks of a vector; the last one may be short."""
    return -(-parameters // CHUNK_ELEMENTS)


def element_range(start_chunk: int, stop_chunk: int, parameters: int) -> tuple[int, int]:
    """The elements `[start, stop)` that chunks `[start_chunk, stop_chunk)` cover."""
    return min(start_chunk * CHUNK_ELEMENTS, parameters), min(
        stop_chunk * CHUNK_ELEMENTS, parameters
    )


def share_out(chunks: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Divide `chunks` chunks into contiguous slices in proportion to `shares`.

    The method is the largest remainder; ties go to the first slice. A slice may be empty.

    Args:
        shares: finite, not negative, not all zero.

    Returns:
        `len(shares) + 1` ascending borders from 0 to `chunks`.

    Raises:
        ValueError: the shares cannot divide anything.
    """
    total = sum(shares)
    if not total > 0 or min(shares) < 0 or not math.isfinite(total * chunks):
        raise ValueError(f"shares {shares} cannot divide anything")
    exact = [chunks * share / total for share in shares]
    sizes = [int(size) for size in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (sizes[i] - exact[i], i))
    for i in by_remainder[: chunks - sum(sizes)]:
        sizes[i] += 1
    borders = [0]
    for size in sizes:
        borders.append(borders[-1] + size)
    return tuple(borders)
