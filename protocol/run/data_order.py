"""Which samples are drawn when: a keyed permutation of the data set for every pass.

A position counts samples through the whole run. Pass `position // dataset_size` has its own
permutation, keyed by (seed, pass), and a node draws the positions of its lane (`Lane`). Two lanes
with one base and stride but different indices share no position, so no two nodes draw the same
sample within a pass. A draw is a pure function of (seed, position), so anyone can replay a step.

The permutation is a Feistel network over the smallest even number of bits that holds the data set,
repeated until the result lands inside (cycle walking: Black and Rogaway, "Ciphers with Arbitrary
Finite Domains", 2002). Nothing is stored and nothing is shuffled: a position costs the same in a
data set of a thousand samples or a billion. The permutation is not a cipher; it only has to look
shuffled.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocol.digest import digest
from protocol.ports.trainer import Lane

Indices = npt.NDArray[np.int64]
"""Shape (count,)."""

MAX_POSITION = (1 << 63) - 1
_DOMAIN = b"hypergpu/order/1\0"
_ROUNDS = 6
"""Rounds of the network.

Four suffice for a large domain (Luby and Rackoff). Small domains need more.
"""

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
"""The constants of splitmix64's finalizer (Steele, Lea and Flood, 2014)."""

_MIX_2 = np.uint64(0x94D049BB133111EB)


def lane_positions(lane: Lane, first: int, count: int) -> Indices:
    """Return the positions of the lane's samples [first, first + count).

    Sample k has the position `base + index + k * stride`; a lane with a limit begins again after
    so many samples.

    Raises `ValueError` for a lane that leaves 63 bits.
    """
    if min(lane.base, lane.index, lane.limit, first, count) < 0 or lane.stride < 1:
        raise ValueError(f"no such positions: {lane}, {count} from {first}")
    furthest = min(first + count, lane.limit) if lane.limit else first + count
    if lane.base + lane.index + furthest * lane.stride > MAX_POSITION:
        raise ValueError(f"positions of {lane} from {first} on do not fit 63 bits")
    numbers = np.int64(first) + np.arange(count, dtype=np.int64)
    if lane.limit:
        numbers %= np.int64(lane.limit)
    return np.int64(lane.base + lane.index) + numbers * np.int64(lane.stride)


def _keys(seed: int, number: int) -> npt.NDArray[np.uint64]:
    material = digest(_DOMAIN, seed.to_bytes(8, "little"), number.to_bytes(8, "little"))
    more = digest(_DOMAIN, material)
    return np.frombuffer(material + more, dtype="<u8")[:_ROUNDS]


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


def _feistel(
    value: npt.NDArray[np.uint64], half_bits: int, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """Apply one permutation of [0, 4**half_bits)."""
    shift = np.uint64(half_bits)
    mask = np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << shift) | right


def _permute(
    offsets: npt.NDArray[np.uint64], dataset_size: int, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    half_bits = max(1, ((dataset_size - 1).bit_length() + 1) // 2)
    walked = _feistel(offsets, half_bits, keys)
    # The domain has less than four times as many elements as the data set (or four in all), so a
    # walk takes fewer than four steps on average.
    outside = np.flatnonzero(walked >= dataset_size)
    while outside.size:
        walked[outside] = _feistel(walked[outside], half_bits, keys)
        outside = outside[walked[outside] >= dataset_size]
    return walked


def sample_indices(seed: int, dataset_size: int, positions: Indices) -> Indices:
    """Return the samples at `positions`, each in [0, dataset_size), in the same order.

    Both arrays have shape (count,).
    """
    if dataset_size < 1:
        raise ValueError("a data set has at least one sample")
    if positions.size and int(positions.min()) < 0:
        raise ValueError("a position counts from zero")
    passes, offsets = np.divmod(positions, np.int64(dataset_size))
    drawn = np.empty(positions.shape, dtype=np.int64)
    for number in np.unique(passes):
        here = passes == number
        drawn[here] = _permute(
            offsets[here].astype(np.uint64), dataset_size, _keys(seed, int(number))
        )
    return drawn
