"""Plays a plan's bytes on the links: every parcel from the scatter to the gather, with its arrival.

Members send each other parcels in order, over one lane for each direction of a pair, as the engine
does:

in a group
    The slice of the offer, then the share of the result that the sender finished, then the other
    shares, when the sender has them all.
between counterparts
    The group's sum of the receiver's share, then the result of the sender's share.

A parcel starts when its contents exist: the leader has heard that everything is held and has said
so (half a round trip each), all groups' sums of a share have arrived, or all shares of a slice
have. It arrives half a round trip after its last bit left. Its receiver handles parcels one after
the other, and each takes a moment. Nothing here uses the planner's model of the same.

Lanes that end within half a percent of the elapsed time end together, each at its own time. What
they leave free is used that much later.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from simulator.network.fluid import LinkKind, share_out
from simulator.network.links import VECTOR_BYTES, Floats, Ints, NetworkLinks

# The receiver's time to handle one parcel: 0.09 s for about 16 parcels in a certified round of four
# (`bench allreduce`).
HANDLING_S = 0.005
# The share of the elapsed time within which lanes end together.
TOGETHER = 0.005
TOGETHER_S = 0.001
# The share of the elapsed time by which a parcel may start late, to start together with others.
STARTING = 0.0003

SLICE, OWN, REST, SUM, RESULT, NONE = range(6)
"""Kinds of parcels, in the order above."""

AT_ONCE, AT_INCLUSION, FINISHED, WHOLE, NEVER = range(5)
"""What a parcel waits for.

In order: nothing, the inclusion, that its sender has finished its share, that its sender has all
shares of its slice.
"""

WAITS = np.array([AT_ONCE, FINISHED, WHOLE, AT_INCLUSION, FINISHED, NEVER])  # by kind
IN_GROUP, BETWEEN_COUNTERPARTS = np.array([SLICE, OWN, REST]), np.array([SUM, RESULT, NONE])
# The most parcels of a lane.
PARCELS = 3


class TransferResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an exchange."""

    seconds: float
    # Bytes that crossed from one region to another.
    between_bytes: float
    sent_bytes: float
    # When the slice that one node scattered to another arrived, shape (nodes, nodes); nan without
    # one.
    slice_s: Floats


class _Lanes(msgspec.Struct, frozen=True, kw_only=True):
    """All lanes.

    Row i of the matrices, of shape (lanes, 3), has the parcels of lane i in order. A parcel of 0
    bits does not exist.
    """

    source: Ints
    target: Ints
    kinds: Ints
    bits: Floats


def transfer(
    groups: Sequence[Sequence[int]],
    shares: Sequence[float],
    links: NetworkLinks,
    vector_bytes: float = VECTOR_BYTES,
) -> TransferResult:
    """Play one exchange.

    `groups` are the plan's groups, as indices into `links`. `shares` are what the positions own,
    together 1.
    """
    return _Exchange(
        _lanes(groups, shares, links.nodes, 8 * vector_bytes), links, groups[0][0]
    ).play()


def _lanes(
    groups: Sequence[Sequence[int]], shares: Sequence[float], nodes: int, bits: float
) -> _Lanes:
    owned, count, positions = np.zeros(nodes), len(groups), len(shares)
    for group in groups:
        owned[np.asarray(group[:positions])] = np.asarray(shares) * bits
    sources, targets, kinds, sizes = [], [], [], []
    for group in groups:
        one, two = _pairs(group)
        own = owned[one] / count
        sources.append(one)
        targets.append(two)
        kinds.append(np.tile(IN_GROUP, (len(one), 1)))
        sizes.append(np.stack([owned[two], own, own * (count - 1)], axis=1))
    for k in range(positions if count > 1 else 0):
        one, two = _pairs([group[k] for group in groups])
        part = owned[one] / count
        sources.append(one)
        targets.append(two)
        kinds.append(np.tile(BETWEEN_COUNTERPARTS, (len(one), 1)))
        sizes.append(np.stack([part, part, np.zeros(len(one))], axis=1))
    return _Lanes(
        source=np.concatenate(sources),
        target=np.concatenate(targets),
        kinds=np.concatenate(kinds),
        bits=np.concatenate(sizes),
    )


def _pairs(group: Sequence[int]) -> tuple[Ints, Ints]:
    members = np.asarray(group, np.int64)
    one, two = np.meshgrid(members, members, indexing="ij")
    away = ~np.eye(len(members), dtype=bool)
    return one[away], two[away]


class _Exchange:
    """One exchange under way."""

    def __init__(self, lanes: _Lanes, links: NetworkLinks, leader: int) -> None:
        self._lanes, self._links, self._leader = lanes, links, leader
        nodes, regions = links.nodes, len(links.between_bps)
        between = links.region[lanes.source] * regions + links.region[lanes.target]
        self._crossed = (
            (lanes.source, links.uplink_bps),
            (lanes.target, links.downlink_bps),
            (between, links.between_bps.ravel()),
        )
        self._most = links.flow_bps[lanes.source, lanes.target]
        self._late = links.rtt_s[lanes.source, lanes.target] / 2
        self._at = np.zeros(len(lanes.source), np.int64)  # which of its parcels a lane is at
        # Indexed by what a parcel waits for, and by sender.
        self._opens = np.full((5, nodes), np.inf)
        self._opens[AT_ONCE] = 0.0
        self._busy = np.zeros(nodes)  # until when a node handles parcels
        self._slice_s = np.full((nodes, nodes), np.nan)
        self._to_come = np.zeros((6, nodes), np.int64)  # by kind, and by receiver
        for column in range(PARCELS):
            there = lanes.bits[:, column] > 0
            np.add.at(self._to_come, (lanes.kinds[there, column], lanes.target[there]), 1)
        self._members = np.unique(lanes.source)

    def play(self) -> TransferResult:
        lanes, now = self._lanes, 0.0
        left = np.zeros(len(lanes.source))
        starts = np.full(len(lanes.source), np.inf)
        fresh = np.arange(len(lanes.source))  # lanes that reached another parcel
        while True:
            fresh = self._skip_empty(fresh)
            left[fresh] = lanes.bits[fresh, self._at[fresh]]
            waiting = np.flatnonzero(self._at < PARCELS)
            if not waiting.size:
                break
            starts[waiting] = self._opens[
                WAITS[lanes.kinds[waiting, self._at[waiting]]], lanes.source[waiting]
            ]
            busy = waiting[starts[waiting] <= now]
            later = starts[waiting[starts[waiting] > now]]
            soon = float(later.min()) if later.size else np.inf
            if not busy.size:
                assert soon < np.inf, "parcels wait for what never comes"
                now, fresh = soon, waiting[:0]
                continue
            rates = share_out(
                self._most[busy],
                tuple(LinkKind(which=which[busy], bits=bits) for which, bits in self._crossed),
            )
            ends = now + left[busy] / rates
            until = max(
                min(float(ends.min()), soon),
                min(now + max(TOGETHER * now, TOGETHER_S), float(ends.max())),
            )
            until = min(until, soon + STARTING * now)
            done = ends <= until * (1 + 1e-12)
            left[busy] -= rates * (until - now)
            fresh = busy[done]
            self._arrived(fresh, ends[done])
            self._at[fresh] += 1
            now = until
        crossing = self._links.region[lanes.source] != self._links.region[lanes.target]
        return TransferResult(
            seconds=float(max(self._busy.max(), self._opens[AT_INCLUSION, self._members].max())),
            between_bytes=float(lanes.bits[crossing].sum() / 8),
            sent_bytes=float(lanes.bits.sum() / 8),
            slice_s=self._slice_s,
        )

    def _skip_empty(self, fresh: Ints) -> Ints:
        """Skip parcels of 0 bits. Returns the lanes of `fresh` that have a parcel left."""
        for _ in range(PARCELS):
            fresh = fresh[self._at[fresh] < PARCELS]
            empty = self._lanes.bits[fresh, self._at[fresh]] <= 0
            if not empty.any():
                break
            self._at[fresh[empty]] += 1
        return fresh[self._at[fresh] < PARCELS]

    def _arrived(self, lanes: Ints, left_s: Floats) -> None:
        """Handle parcels whose last bit left. Their receivers may then start what waited."""
        if not lanes.size:
            return
        arrival, target = left_s + self._late[lanes], self._lanes.target[lanes]
        kinds = self._lanes.kinds[lanes, self._at[lanes]]
        slices = lanes[kinds == SLICE]
        self._slice_s[self._lanes.source[slices], self._lanes.target[slices]] = arrival[
            kinds == SLICE
        ]
        self._receive(target, arrival)
        np.subtract.at(self._to_come, (kinds, target), 1)
        met = np.unique(target)
        complete = met[self._to_come[SUM, met] == 0]
        if self._to_come[SLICE].sum() == 0 and np.isinf(self._opens[AT_INCLUSION]).any():
            self._include()
        elif SUM in kinds:
            self._finish(complete)
        if RESULT in kinds:
            whole = met[(self._to_come[RESULT, met] == 0) & np.isinf(self._opens[WHOLE, met])]
            self._opens[WHOLE, whole] = np.maximum(self._busy[whole], self._opens[FINISHED, whole])

    def _receive(self, target: Ints, arrival: Floats) -> None:
        order = np.lexsort((arrival, target))
        target, arrival = target[order], arrival[order]
        met, first, count = np.unique(target, return_index=True, return_counts=True)
        # How many parcels, this one included, the receiver handles from this one on.
        behind = np.repeat(first + count, count) - np.arange(len(target))
        last = np.maximum.reduceat(arrival + HANDLING_S * behind, first)
        self._busy[met] = np.maximum(self._busy[met] + HANDLING_S * count, last)

    def _include(self) -> None:
        rtt = self._links.rtt_s[self._leader]
        known = float((self._busy[self._members] + rtt[self._members] / 2).max())
        self._opens[AT_INCLUSION] = known + rtt / 2
        self._finish(np.flatnonzero(self._to_come[SUM] == 0))

    def _finish(self, nodes: Ints) -> None:
        """Record that these nodes have all sums that they wait for."""
        new = nodes[np.isinf(self._opens[FINISHED, nodes])]
        self._opens[FINISHED, new] = np.maximum(self._opens[AT_INCLUSION, new], self._busy[new])
        alone = new[self._to_come[RESULT, new] == 0]
        self._opens[WHOLE, alone] = self._opens[FINISHED, alone]
