"""The time model: how long a round takes with given groups.

    scatter   each member sends every owner of its group that owner's slice
    close     the leader learns that everything has arrived, and says which contributions count
    reduce    the owners of one position send each other partial sums of their parts of the slice,
              in float32
    spread    they send each other the results of their parts; meanwhile each sends its group what
              it has
    gather    the last member of each group receives the last result

Each step takes as long as its slowest member: what its uplink or downlink must move, or what its
longest path carries of one slice, whichever is more. To this come half a round trip for the last
byte, and the work that each message makes. What relays carry is added: it shares their links with
their own slices.

Then the expected cost of losses is added: the cost of a lost member times the probability of losing
one. Petals and PCCL measure that cost; the form is that of `T(M) = ... + [1 - (1 - p)^M] x repair`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from protocol.network.coordinate import Coordinate, estimate_us
from protocol.network.network_snapshot import UNKNOWN, NetworkSnapshot
from protocol.network.samples import median
from protocol.planning.group_proposals import Groups
from protocol.planning.relay_load import relay_s
from protocol.planning.vector_sizes import VectorSizes

MESSAGE_S = 0.005
"""Seconds for one message at one end.

Measured: 0.09 s for about 16 messages in a certified round of four (`bench allreduce`, control over
py-libp2p).
"""

DETECTION_S = 4.0
"""Seconds until every connected peer knows that a member is silent (`daemon/network`)."""

SECOND_US = 1_000_000

EXTREMES = 3
"""Members of a group from which distances are measured: the longest path ends near one of them."""


class TimeEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of groups.

    `seconds` is the expected time, losses included. `distance` is the sum of bytes moved times how
    far, in byte-seconds: by it the choice judges that most bytes stay between near peers.
    """

    seconds: float
    distance: float


class TimeModel:
    """The time model of one snapshot. An unknown link counts as the median of the known ones."""

    def __init__(self, snapshot: NetworkSnapshot, sizes: VectorSizes) -> None:
        """Raises `ValueError` if no link was measured."""
        self._flows = snapshot.flows
        self._failure_rate = snapshot.failure_rate
        self._longest_us = snapshot.longest_us
        self._bits = VectorSizes(
            offer=8 * sizes.offer, partial=8 * sizes.partial, result=8 * sizes.result
        )
        uplinks = [member.uplink_bps for member in snapshot.members if member.uplink_bps != UNKNOWN]
        downlinks = [
            member.downlink_bps for member in snapshot.members if member.downlink_bps != UNKNOWN
        ]
        if not uplinks:
            raise ValueError("no link was measured: nothing can be predicted")
        uplink, downlink = median(uplinks), median(downlinks or uplinks)
        self._up = [float(member.uplink_bps or uplink) for member in snapshot.members]
        self._down = [float(member.downlink_bps or downlink) for member in snapshot.members]
        self._at = [member.at for member in snapshot.members]
        self._relayed, self._usual_bps = snapshot.relayed, float(min(uplink, downlink))

    def weakest(self, groups: Groups) -> tuple[list[int], list[int]]:
        """Return the weakest uplink and downlink of each position, by which slices are sized."""
        positions = range(min(len(group) for group in groups))
        uplinks = [int(min(self._up[group[k]] for group in groups)) for k in positions]
        downlinks = [int(min(self._down[group[k]] for group in groups)) for k in positions]
        return uplinks, downlinks

    def alone_s(self, member: int) -> float:
        """Return the least time in which a member can send or receive one vector.

        No choice of groups makes it faster.
        """
        return self._bits.offer / min(self._up[member], self._down[member])

    def estimate(self, groups: Groups, shares: Sequence[float]) -> TimeEstimate:
        """Estimate a round with these groups, where each position owns a share of the vector."""
        positions, count = len(shares), len(groups)
        group_reach = [self._reach(group) for group in groups]
        position_reach = (
            [self._reach([group[k] for group in groups]) for k in range(positions)]
            if count > 1
            else []
        )
        everywhere = self._reach([group[0] for group in groups]) if count > 1 else group_reach[0]
        largest = max(shares)
        scatter, reduce, rest, distance = 0.0, 0.0, 0.0, 0.0
        for place, (group, reaches) in enumerate(zip(groups, group_reach, strict=True)):
            others = len(group) - 1
            handling = MESSAGE_S * others
            for k, (i, reach) in enumerate(zip(group, reaches, strict=True)):
                own = shares[k] if k < positions else 0.0
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
                    far = position_reach[k][place]
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
                    # Each result that is spread shares the uplink with what goes to the group, or
                    # takes what its path carries.
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
        close = 2 * max(max(reaches) for reaches in (*group_reach, everywhere)) / 2 / SECOND_US
        total = scatter + close + reduce + rest
        total += relay_s(self._relayed, groups, shares, self._bits, self._usual_bps)
        return TimeEstimate(
            seconds=total + self._loss_s(groups, largest), distance=distance / SECOND_US
        )

    def _loss_s(self, groups: Groups, largest: float) -> float:
        """Return the expected cost of losing members.

        Another owner must then collect a slice from its whole group again.
        """
        if not self._failure_rate:
            return 0.0
        members = sum(len(group) for group in groups)
        none, power = 1.0, 1.0 - self._failure_rate
        # (1 - p)^n by squaring, so that the order of multiplications is fixed.
        while members:
            if members & 1:
                none *= power
            power, members = power * power, members >> 1
        down = sorted(self._down)[len(self._down) // 2]
        others = len(groups[0]) - 1
        return (1.0 - none) * (DETECTION_S + others * largest * self._bits.offer / down)

    def _reach(self, group: Sequence[int]) -> list[int]:
        """Return how far the furthest other member is from each member, in microseconds.

        Distances are measured from the group's extremes.
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
