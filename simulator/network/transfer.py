"""What a plan's bytes do on the links: every parcel from the first of the scatter to the last of
the gather, and when it arrives.

Members send each other parcels in order over one lane for each direction of a pair, as the engine
does:

    in a row    the offer's slice | the share of the result that its sender finished | the other shares, when it has them all
    in a rank   the sum over the row of the receiver's share | the result of the sender's share

A parcel starts when what it is made of is there: the leader has heard that everything is held and
said so (half a round trip each), all rows' sums of a share have come, all shares of a slice have.
It arrives half a round trip after its last bit left. Taking it costs its receiver a moment, one
after the other. Nothing here knows the planner's model of the same.

Lanes that end within half a percent of the time passed end together, each at its own time: what
they leave free is used that much later.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from simulator.network.fluid import LinkKind, share_out
from simulator.network.links import VECTOR_BYTES, Floats, Ints, NetworkLinks

# A parcel's control message at its receiver: 0.09 s for about 16 in a certified round of four
# (`bench allreduce`).
TAKING_S = 0.005
TOGETHER = 0.005  # of the time passed
TOGETHER_S = 0.001
# Of the time passed: by how much a parcel may start late for the sake of others that start soon
# after.
STARTING = 0.0003

SLICE, OWN, REST, SUM, RESULT, NONE = range(6)
"""Kinds of parcels, in the order of the picture above."""

AT_ONCE, AT_CUT, FINISHED, WHOLE, NEVER = range(5)
"""What a parcel waits for: nothing; the cut; that its sender has finished its share; that its sender has all shares of its slice."""

WAITS = np.array([AT_ONCE, FINISHED, WHOLE, AT_CUT, FINISHED, NEVER])  # by kind
IN_ROW, IN_RANK = np.array([SLICE, OWN, REST]), np.array([SUM, RESULT, NONE])
PARCELS = 3  # of a lane at most


class TransferResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    seconds: float
    between_bytes: float  # that crossed from a region to another
    sent_bytes: float
    slice_s: Floats  # shape (nodes, nodes): when the slice that one scattered to the other was there; nan where none was


class _Lanes(msgspec.Struct, frozen=True, kw_only=True):
    """All lanes.

    Row i of the matrices, of shape (lanes, 3), has the parcels of lane i in order; one of 0 bits is
    none.
    """

    source: Ints
    target: Ints
    kinds: Ints
    bits: Floats


def transfer(
    rows: Sequence[Sequence[int]],
    shares: Sequence[float],
    links: NetworkLinks,
    vector_bytes: float = VECTOR_BYTES,
) -> TransferResult:
    """Play one exchange.

    `rows` are the plan's, of indices into `links`; `shares` what the ranks own, together 1.
    """
    return _Play(_lanes(rows, shares, links.nodes, 8 * vector_bytes), links, rows[0][0]).play()


def _lanes(
    rows: Sequence[Sequence[int]], shares: Sequence[float], nodes: int, bits: float
) -> _Lanes:
    owned, count, ranks = np.zeros(nodes), len(rows), len(shares)
    for row in rows:
        owned[np.asarray(row[:ranks])] = np.asarray(shares) * bits
    sources, targets, kinds, sizes = [], [], [], []
    for row in rows:
        one, two = _pairs(row)
        own = owned[one] / count
        sources.append(one)
        targets.append(two)
        kinds.append(np.tile(IN_ROW, (len(one), 1)))
        sizes.append(np.stack([owned[two], own, own * (count - 1)], axis=1))
    for k in range(ranks if count > 1 else 0):
        one, two = _pairs([row[k] for row in rows])
        part = owned[one] / count
        sources.append(one)
        targets.append(two)
        kinds.append(np.tile(IN_RANK, (len(one), 1)))
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


class _Play:
    """One exchange under way."""

    def __init__(self, lanes: _Lanes, links: NetworkLinks, leader: int) -> None:
        self._lanes, self._links, self._leader = lanes, links, leader
        nodes, regions = links.nodes, len(links.between_bits)
        between = links.region[lanes.source] * regions + links.region[lanes.target]
        self._crossed = (
            (lanes.source, links.up),
            (lanes.target, links.down),
            (between, links.between_bits.ravel()),
        )
        self._most = links.flow_bits[lanes.source, lanes.target]
        self._late = links.rtt_s[lanes.source, lanes.target] / 2
        self._at = np.zeros(len(lanes.source), np.int64)  # which of its parcels a lane is at
        self._opens = np.full((5, nodes), np.inf)  # by what is waited for, and by sender
        self._opens[AT_ONCE] = 0.0
        self._busy = np.zeros(nodes)  # until when a node takes what came
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
        fresh = np.arange(len(lanes.source))  # lanes that have come to another parcel
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
            seconds=float(max(self._busy.max(), self._opens[AT_CUT, self._members].max())),
            between_bytes=float(lanes.bits[crossing].sum() / 8),
            sent_bytes=float(lanes.bits.sum() / 8),
            slice_s=self._slice_s,
        )

    def _skip_empty(self, fresh: Ints) -> Ints:
        """Past parcels of nothing. Returns those of `fresh` that have one left."""
        for _ in range(PARCELS):
            fresh = fresh[self._at[fresh] < PARCELS]
            empty = self._lanes.bits[fresh, self._at[fresh]] <= 0
            if not empty.any():
                break
            self._at[fresh[empty]] += 1
        return fresh[self._at[fresh] < PARCELS]

    def _arrived(self, lanes: Ints, left_s: Floats) -> None:
        """Parcels whose last bit left: their receivers take them one after the other, and what
        waited for them may begin.
        """
        if not lanes.size:
            return
        arrival, target = left_s + self._late[lanes], self._lanes.target[lanes]
        kinds = self._lanes.kinds[lanes, self._at[lanes]]
        slices = lanes[kinds == SLICE]
        self._slice_s[self._lanes.source[slices], self._lanes.target[slices]] = arrival[
            kinds == SLICE
        ]
        self._take(target, arrival)
        np.subtract.at(self._to_come, (kinds, target), 1)
        met = np.unique(target)
        complete = met[self._to_come[SUM, met] == 0]
        if self._to_come[SLICE].sum() == 0 and np.isinf(self._opens[AT_CUT]).any():
            self._cut()
        elif SUM in kinds:
            self._finish(complete)
        if RESULT in kinds:
            whole = met[(self._to_come[RESULT, met] == 0) & np.isinf(self._opens[WHOLE, met])]
            self._opens[WHOLE, whole] = np.maximum(self._busy[whole], self._opens[FINISHED, whole])

    def _take(self, target: Ints, arrival: Floats) -> None:
        order = np.lexsort((arrival, target))
        target, arrival = target[order], arrival[order]
        met, first, count = np.unique(target, return_index=True, return_counts=True)
        # How many, itself included, are taken from this one on.
        behind = np.repeat(first + count, count) - np.arange(len(target))
        last = np.maximum.reduceat(arrival + TAKING_S * behind, first)
        self._busy[met] = np.maximum(self._busy[met] + TAKING_S * count, last)

    def _cut(self) -> None:
        rtt = self._links.rtt_s[self._leader]
        told = float((self._busy[self._members] + rtt[self._members] / 2).max())
        self._opens[AT_CUT] = told + rtt / 2
        self._finish(np.flatnonzero(self._to_come[SUM] == 0))

    def _finish(self, nodes: Ints) -> None:
        """These have all sums that they wait for, or none to wait for."""
        new = nodes[np.isinf(self._opens[FINISHED, nodes])]
        self._opens[FINISHED, new] = np.maximum(self._opens[AT_CUT, new], self._busy[new])
        alone = new[self._to_come[RESULT, new] == 0]
        self._opens[WHOLE, alone] = self._opens[FINISHED, alone]
