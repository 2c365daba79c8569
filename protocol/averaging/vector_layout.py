"""Where things are in the flat vector: chunks, slices, and how the vector is shared out among
reducers.

A chunk is the unit of everything: a leaf of a contribution's digest, a whole number of every
codec's blocks, and where slices may be cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CHUNK_ELEMENTS = 4096
"""Elements of one chunk. A multiple of every codec's block (256 for int8, 64 for int4, 4096 for top-k); 16 KiB of float32 hash at full
speed, and the smallest shipped model still has more chunks than a demo has members."""

STATE_CHUNK_BYTES = 1 << 18
"""Bytes of one leaf of the state's digest, and of one piece of a download: a second's worth of a 2 Mbit/s uplink."""

MAX_PARAMETERS = 1 << 32
"""Longer vectors are refused: 16 GiB of float32, above what one consumer card trains."""


def chunk_count(parameters: int) -> int:
    """Chunks of a vector; the last one may be short."""
    return -(-parameters // CHUNK_ELEMENTS)


def element_range(start_chunk: int, stop_chunk: int, parameters: int) -> tuple[int, int]:
    """The elements `[start, stop)` that chunks `[start_chunk, stop_chunk)` cover."""
    return min(start_chunk * CHUNK_ELEMENTS, parameters), min(
        stop_chunk * CHUNK_ELEMENTS, parameters
    )


def share_out(chunks: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Borders of `len(shares)` contiguous slices of `chunks` chunks in proportion to `shares`
    (largest remainder, ties to the first).

    Returns `len(shares) + 1` ascending borders from 0 to `chunks`. A slice may be empty. Shares
    must be finite, not negative and not all zero.
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
