"""Which samples an audit measures: groups that a contribution was trained on, and others.

An offer names stretches of lanes. A lane follows from a certificate and a peer, so a contributor
can only name samples that were its own to draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from protocol.certificates.tip import Tip
from protocol.identity import PeerId
from protocol.messages.offer import DataStretch
from protocol.ports.trainer import Lane
from protocol.run.data_order import Indices, lane_positions, sample_indices

GROUPS = 16
"""The groups of each kind in one audit."""

GROUP_SAMPLES = 32
"""The samples of a group.

The loss of one sample says little; the mean of 32 separates honest work from nothing.
"""

MIN_NAMED = 16
"""The fewest distinct samples that an audit can judge: two groups of 8."""

NAMED_SHARE = 2
"""An offer names at least one of so many of its samples, or it scores as no work.

Of an honest one after a restart, or with more than four stretches, the rest is missing.
"""

COUNTED_POSITIONS = 1 << 18
"""The most positions of which an audit lists the samples, to leave them out of the other groups.

Above that, a random sample meets a drawn one so seldom that it does not matter, or the data set is
so small that every sample was drawn.
"""

OTHERS_SHARE = 4
"""At least one of so many samples of the data set must be undrawn by the others.

In a smaller data set only what the contributor itself drew is left out.
"""

_POOL = 4 * GROUPS * GROUP_SAMPLES
"""The samples of which the groups are made, where there are more."""

_LARGEST_SHARE = 2
"""A contributor that drew more than one of so many samples of the data set cannot be judged."""


class DrawnStretch(msgspec.Struct, frozen=True, kw_only=True):
    """The samples [first, first + count) of a lane. A lane with a limit begins again."""

    lane: Lane
    first: int
    count: int


class AuditGroups(msgspec.Struct, frozen=True, kw_only=True):
    """The positions of an audit's samples in the run's order, shape (groups, samples)."""

    own: Indices
    others: Indices


def drawn_stretch(tip: Tip, peer: PeerId, named: DataStretch) -> DrawnStretch:
    """Return what an offer of `peer` names of the samples after `tip`.

    A name counts the samples of the reserve first, then those of the lane.
    """
    if named.first < tip.reserve:
        lane = tip.reserve_lane(peer).after(named.first)
        return DrawnStretch(lane=lane, first=0, count=named.count)
    lane = tip.lane(peer)
    return DrawnStretch(lane=lane, first=named.first - tip.reserve, count=named.count)


def named_total(stretches: Sequence[DrawnStretch]) -> int:
    """Return how many draws the stretches name. What two of them name counts once."""
    spans: dict[Lane, list[tuple[int, int]]] = {}
    for stretch in stretches:
        spans.setdefault(stretch.lane, []).append((stretch.first, stretch.first + stretch.count))
    total = 0
    for parts in spans.values():
        reached = 0
        for first, stop in sorted(parts):
            total += max(0, stop - max(first, reached))
            reached = max(reached, stop)
    return total


def audit_groups(
    own: Sequence[DrawnStretch],
    others: Sequence[DrawnStretch],
    *,
    seed: int,
    trained: int,
    rng: np.random.Generator,
) -> AuditGroups | None:
    """Draw the groups of one audit.

    Args:
        own: what the audited offer names.
        others: what the other offers of the plan name.
        seed: of the run's order of samples.
        trained: the samples of the data set that are trained on.
        rng: the auditor's random numbers.

    Returns:
        The groups; None where the offer names too few samples, or most of the data set.

    Raises:
        ValueError: a stretch leaves 63 bits.
    """
    if not own:
        return None
    pool = _distinct(_some_of(own, rng), seed, trained)
    drawn = sample_indices(seed, trained, pool)
    if pool.size * _LARGEST_SHARE > trained:
        return None
    foreign = _undrawn(drawn, others, seed=seed, trained=trained, rng=rng)
    size = min(GROUP_SAMPLES, pool.size // 2, foreign.size // 2)
    if size < MIN_NAMED // 2:
        return None
    return AuditGroups(own=_grouped(pool, size, rng), others=_grouped(foreign, size, rng))


def _some_of(stretches: Sequence[DrawnStretch], rng: np.random.Generator) -> Indices:
    """Return the positions of the stretches, or of a random part of long ones."""
    total = sum(stretch.count for stretch in stretches)
    if total <= COUNTED_POSITIONS:
        return _all_of(stretches)
    numbers, positions, before = rng.integers(0, total, size=_POOL), [], 0
    for stretch in stretches:
        inside = numbers[(numbers >= before) & (numbers < before + stretch.count)] - before
        # Checks that the whole stretch fits.
        lane_positions(stretch.lane, stretch.first + stretch.count, 0)
        positions += [stretch.lane.position(stretch.first + int(number)) for number in inside]
        before += stretch.count
    return np.array(positions, dtype=np.int64)


def _all_of(stretches: Sequence[DrawnStretch]) -> Indices:
    return np.concatenate(
        [
            np.zeros(0, np.int64),
            *(lane_positions(each.lane, each.first, each.count) for each in stretches),
        ]
    )


def _distinct(positions: Indices, seed: int, trained: int) -> Indices:
    """Return one position of each sample."""
    _, first = np.unique(sample_indices(seed, trained, positions), return_index=True)
    return positions[first]


def _undrawn(
    own: Indices,
    others: Sequence[DrawnStretch],
    *,
    seed: int,
    trained: int,
    rng: np.random.Generator,
) -> Indices:
    """Return positions whose samples nobody drew.

    `own` are the samples of the audited offer. Where the others drew most of the data set, only
    `own` is left out.
    """
    # The first pass holds each sample once.
    tried = rng.integers(0, trained, size=4 * _POOL) if trained > 4 * _POOL else None
    positions = np.arange(trained, dtype=np.int64) if tried is None else np.unique(tried)
    samples = sample_indices(seed, trained, positions)
    free = ~np.isin(samples, own)
    if sum(stretch.count for stretch in others) <= COUNTED_POSITIONS:
        untouched = free & ~np.isin(samples, sample_indices(seed, trained, _all_of(others)))
        if np.count_nonzero(untouched) * OTHERS_SHARE >= positions.size:
            free = untouched
    return rng.permutation(positions[free])[:_POOL]


def _grouped(pool: Indices, size: int, rng: np.random.Generator) -> Indices:
    """Return `GROUPS` groups of `size` of the pool, disjoint where it has enough."""
    if pool.size >= GROUPS * size:
        return rng.permutation(pool)[: GROUPS * size].reshape(GROUPS, size)
    return np.stack([rng.permutation(pool)[:size] for _ in range(GROUPS)])
