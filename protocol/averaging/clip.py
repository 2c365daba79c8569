"""The clip: how much of each contribution's chunk enters the mean.

A contribution can be as long as its maker likes, and the mean moves with it. So each chunk of each
contribution counts at most 1.5 times the usual length of that chunk among the group's voters. A
chunk is judged by itself: whoever has one chunk of all contributions can check the sum of it.

e   a chunk's energy: the sum of its squares in float64. Element j is added to lane j mod 64, in
    order; then lanes are added pairwise at distance 32, 16, 8, 4, 2 and 1. Squares of float32 are
    exact in float64, so this order fixes every bit
B   the bound: the lower median of sqrt(e) over the group's voters, the largest of them where fewer
    than 4 contribute. Where no voter contributes, all contributors count
F   the floor: N sqrt(elements / parameters), where N is the usual length of a whole step
    (`step_norm.py`). B is at least F and at most 8 F. In a run's first rounds N is not known. The
    median is then that of the lengths above zero, so that no chunk is scaled to nothing

A contribution's factor is min(1, ratio B / sqrt(e)), with the ratio 1.5 / max(1, weight / m): one
member moves a chunk by at most 1.5 m B, whatever it claims. In runs whose members are trusted the
ratio is 1.5 max(1, weight / m): a machine with 50 times the samples moves further.

The median of 3 is one honest voter's word where one of them lies, and the floor keeps alive a chunk
that only one member's data touch. Measured on the byte GPT with 8 members: with a ratio of 3 and
weights up to 4 m, one attacker destroyed the model; with 1.5 and 2 m, one and two did not. With the
longest as the bound while N is not known, one voter destroyed it in its first rounds.

This file is the definition. `protocol/codec/kernel.c` computes the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.digest import Buffer

LANES = 64
RATIO = 1.5
# From this number of voters on, their median is the bound.
VOTERS_FOR_MEDIAN = 4
MOST_FLOORS = 8.0

Doubles = npt.NDArray[np.float64]


class ClipPart(msgspec.Struct, frozen=True, kw_only=True):
    """One encoded contribution to a clipped mean."""

    weight: int
    data: Buffer
    # Whether its length counts for the bound.
    votes: bool
    # How far it may exceed the bound.
    ratio: float = RATIO


class ClipScale(msgspec.Struct, frozen=True, kw_only=True):
    """What the floor of a chunk follows from."""

    # N: the usual L2 norm of a whole step of this round; 0.0 where it is not known.
    norm: float
    # The elements of the whole vector.
    parameters: int

    def floor(self, elements: int) -> float:
        """Return F for a chunk of `elements` elements; 0.0 where N is not known."""
        return self.norm * math.sqrt(elements / self.parameters) if self.norm > 0.0 else 0.0


def clip_ratio(weight: int, median: int, *, trusting: bool) -> float:
    """Return how far a contribution may exceed the bound.

    Args:
        weight: its weight.
        median: m.
        trusting: whether the owner knows every member.
    """
    heavier = max(1.0, weight / max(1, median))
    return RATIO * heavier if trusting else RATIO / heavier


def chunk_energies(values: Vector) -> Doubles:
    """Return the energy of each chunk.

    Args:
        values: finite, a run of whole chunks whose last one may be short, shape (elements,).

    Returns:
        Sums of squares in float64, shape (chunks,).
    """
    whole = values.size // CHUNK_ELEMENTS * CHUNK_ELEMENTS
    parts = [_energies(values[:whole].reshape(-1, CHUNK_ELEMENTS))] if whole else []
    if rest := values.size - whole:
        # Zeros change no sum of squares.
        padded = np.zeros((1, -(-rest // LANES) * LANES), np.float32)
        padded[0, :rest] = values[whole:]
        parts.append(_energies(padded))
    return np.concatenate(parts) if parts else np.empty(0)


def _energies(chunks: Vector) -> Doubles:
    """Return the energies of chunks, shape (chunks, a multiple of LANES), in the defined order."""
    rows = chunks.reshape(len(chunks), -1, LANES)
    lanes = np.zeros((len(chunks), LANES))
    for at in range(rows.shape[1]):
        row = rows[:, at].astype(np.float64)
        lanes += row * row
    distance = LANES // 2
    while distance:
        lanes = lanes[:, :distance] + lanes[:, distance : 2 * distance]
        distance //= 2
    return lanes[:, 0]


def bounds(roots: Doubles, votes: Sequence[bool], floor: float) -> Doubles:
    """Return B for each chunk.

    Args:
        roots: sqrt(e) of each part's chunk, shape (parts, chunks).
        votes: whether each part is a voter's; the others count where no part is.
        floor: F; 0.0 where it is not known.

    Returns:
        The bounds, shape (chunks,).
    """
    judges = [i for i, vote in enumerate(votes) if vote] or list(range(len(votes)))
    ordered = np.sort(roots[judges], axis=0)
    if len(judges) < VOTERS_FOR_MEDIAN:
        bound: Doubles = ordered[-1]
    elif floor > 0.0:
        bound = ordered[(len(judges) - 1) // 2]
    else:
        zeros = np.minimum(np.count_nonzero(ordered == 0.0, axis=0), len(judges) - 1)
        place = zeros + (len(judges) - zeros - 1) // 2
        bound = np.take_along_axis(ordered, place[None, :], axis=0)[0]
    return np.clip(bound, floor, MOST_FLOORS * floor) if floor > 0.0 else bound


def factors(roots: Doubles, bound: Doubles, ratios: Sequence[float]) -> Doubles:
    """Return which share of each part's chunk counts, shape (parts, chunks).

    Args:
        roots: sqrt(e), shape (parts, chunks).
        bound: B, shape (chunks,).
        ratios: how far each part may exceed the bound.
    """
    most = np.array(ratios)[:, None] * bound
    shares = np.ones_like(roots)
    np.divide(most, roots, out=shares, where=roots > most)
    return shares
