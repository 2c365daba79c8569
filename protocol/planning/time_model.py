"""How long a round would take with given rows: the model that plans are chosen by.

    scatter     each member sends every owner of its row that owner's slice
    cut         the leader hears that all is held, and tells everybody what counts
    reduce      owners of one rank send each other partial sums of their parts of the slice, in float32
    spread      and then the results of their parts; meanwhile each sends its row what it has
    gather      to the last member of each row

Each step takes as long as its slowest member: what its uplink and its downlink must move, or what
its longest path carries of one slice, whichever is more; then half a round trip for the last byte
to arrive, and for each message the work that it makes. To this comes what a lost member costs times
the probability of losing one (Petals and PCCL measure it; the form is that of `T(M) = ... + [1 - (1
- p)^M] x repair`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from protocol.network.coordinate import Coordinate, estimate_us
from protocol.network.network_snapshot import UNKNOWN, NetworkSnapshot
from protocol.network.samples import median
from protocol.planning.group_proposals import Groups

# Of one message at one end: 0.09 s for about 16 in a certified round of four (`bench allreduce`,
# control over py-libp2p).
MESSAGE_S = 0.005
# Until everybody connected to a silent member knows (`daemon/network`).
DETECTION_S = 4.0
SECOND_US = 1_000_000
# Members of a group from which distances are taken: the longest path of a member ends at one of
# them, or nearly.
EXTREMES = 3


class VectorSizes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the whole vector as it is offered, as partial sums, and as a result."""

    offer: int
    partial: int
    result: int


class TimeEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a proposal comes to."""

    seconds: float  # expected, with losses
    # byte-seconds: what is moved times how far, by which "most bytes stay between near peers" is
    # judged.
    distance: float


class TimeModel:
    """The network as the model takes it: what is unknown counts as the median of what is known."""

    def __init__(self, view: NetworkSnapshot, sizes: VectorSizes) -> None:
        self._flows = view.flows
        self._loss = view.failure_rate
        self._longest_us = view.longest_us
        self._bits = VectorSizes(
            offer=8 * sizes.offer, partial=8 * sizes.partial, result=8 * sizes.result
        )
        ups = [member.uplink_bps for member in view.members if member.uplink_bps != UNKNOWN]
        downs = [member.downlink_bps for member in view.members if member.downlink_bps != UNKNOWN]
        if not ups:
            raise ValueError("no link was measured: nothing can be predicted")
        up, down = median(ups), median(downs or ups)
        self._up = [float(member.uplink_bps or up) for member in view.members]
        self._down = [float(member.downlink_bps or down) for member in view.members]
        self._at = [member.at for member in view.members]

    def weakest(self, rows: Groups) -> tuple[list[int], list[int]]:
        """What the weakest owner of each rank carries up and down: what slices are sized for."""
        ranks = range(min(len(row) for row in rows))
        return [int(min(self._up[row[k]] for row in rows)) for k in ranks], [
            int(min(self._down[row[k]] for row in rows)) for k in ranks
        ]

    def alone_s(self, member: int) -> float:
        """What a member needs at least to give away its own vector, or to take one: nobody's layout
        makes it faster.
        """
        return self._bits.offer / min(self._up[member], self._down[member])

    def estimate(self, rows: Groups, shares: Sequence[float]) -> TimeEstimate:
        """For the fractions of the vector that the ranks own."""
        ranks, count = len(shares), len(rows)
        row_reach = [self._reach(row) for row in rows]
        rank_reach = (
            [self._reach([row[k] for row in rows]) for k in range(ranks)] if count > 1 else []
        )
        everywhere = self._reach([row[0] for row in rows]) if count > 1 else row_reach[0]
        largest = max(shares)
        scatter, reduce, rest, distance = 0.0, 0.0, 0.0, 0.0
        for place, (row, reaches) in enumerate(zip(rows, row_reach, strict=True)):
            others = len(row) - 1
            handling = MESSAGE_S * others
            for k, (i, reach) in enumerate(zip(row, reaches, strict=True)):
                own = shares[k] if k < ranks else 0.0
                up, down, flow, late = (
                    self._up[i],
                    self._down[i],
                    self._flows.bits(reach),
                    reach / 2 / SECOND_US,
                )
                away, gathered = 1 - own, others * own
                sent = max(
                    away * self._bits.offer / up,
                    gathered * self._bits.offer / down,
                    largest * self._bits.offer / flow,
                )
                scatter = max(scatter, sent + late + handling)
                through = max(gathered * self._bits.result / up, largest * self._bits.result / flow)
                parts = 0.0
                if count > 1 and own:
                    far = rank_reach[k][place]
                    part, partners = own / count, count - 1
                    far_flow = self._flows.bits(far)
                    hop = far / 2 / SECOND_US + MESSAGE_S * partners
                    reduce = max(
                        reduce,
                        max(
                            partners * part * self._bits.partial / min(up, down),
                            part * self._bits.partial / far_flow,
                        )
                        + hop,
                    )
                    # Beside what goes to the row each spread result gets its share of the uplink,
                    # or what the path carries.
                    rate = min(far_flow, up / (others + partners))
                    parts = part * self._bits.result / rate + hop
                    through = max(
                        through + partners * part * self._bits.result / up,
                        parts + through * partners / count,
                    )
                    distance += (self._bits.partial + self._bits.result) * partners * part * far
                gather = max(through, away * self._bits.result / down) + late + handling
                rest = max(rest, gather)
                distance += (self._bits.offer * away + self._bits.result * gathered) * reach
        cut = 2 * max(max(reaches) for reaches in (*row_reach, everywhere)) / 2 / SECOND_US
        total = scatter + cut + reduce + rest
        return TimeEstimate(
            seconds=total + self._losses(rows, largest, len(rows[0])), distance=distance / SECOND_US
        )

    def _losses(self, rows: Groups, largest: float, row: int) -> float:
        """The expected cost of losing members: somebody else must get a slice again from a whole
        row.
        """
        if not self._loss:
            return 0.0
        members = sum(len(each) for each in rows)
        none, power = 1.0, 1.0 - self._loss
        # (1 - p)^n in a fixed order of multiplications.
        while members:
            if members & 1:
                none *= power
            power, members = power * power, members >> 1
        down = sorted(self._down)[len(self._down) // 2]
        return (1.0 - none) * (DETECTION_S + (row - 1) * largest * self._bits.offer / down)

    def _reach(self, group: Sequence[int]) -> list[int]:
        """For each member of a group how far, in microseconds, the furthest of the others is, as
        seen from the group's extremes.
        """
        known = [i for i in group if self._at[i] is not None]
        if len(known) < 2:
            return [0] * len(group)
        extremes: list[int] = []
        furthest = dict.fromkeys(group, 0)
        start = known[0]
        for _ in range(EXTREMES):
            distances = {
                i: estimate_us(_at(self._at[i]), _at(self._at[start])) if i != start else 0
                for i in known
            }
            for i, distance in distances.items():
                furthest[i] = max(furthest[i], distance)
                furthest[start] = max(furthest[start], distance)
            extremes.append(start)
            start = max(
                (i for i in known if i not in extremes),
                key=lambda i: (furthest[i], -i),
                default=start,
            )
            if start in extremes:
                break
        typical = median(list(furthest.values()))
        return [min(furthest[i] or typical, self._longest_us) for i in group]


def _at(at: Coordinate | None) -> Coordinate:
    assert at is not None
    return at
