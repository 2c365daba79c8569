"""How much one path carries, by its round trip, from the losses that all members counted together.

A flow carries at most 1.22 x MSS / (RTT x sqrt(loss)) (Mathis et al. 1997,
https://doi.org/10.1145/263932.264023). One path alone tells little: of two hundred packets at a
loss of a thousandth, none is lost, or one, which would be five times the true rate. So every member
reports counts. They are added up for each octave of round trips, and an octave with few packets
leans on the others. The median over several groups of members decides, so that a member that
invents counts spoils one group.

Only integers, the four operations and the square root are used, which give the same result on every
machine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import sqrt

import msgspec

from protocol.network.peer_observation import PeerObservation
from protocol.network.samples import median

MATHIS_BITS = 1.22 * 8 * 1448
"""The paper's constant times the bits of a segment."""

GROUPS, GROUP = 7, 8
"""The least number of groups if there are enough members, and the members of a group."""

SECOND_US = 1_000_000
MOST_PRODUCT = 1 << 62


def product_of(loss: float) -> int:
    """Return the most that a flow carries times its round trip, in bits a second x microseconds.

    Args:
        loss: the share of packets that are lost, above 0.
    """
    return min(MOST_PRODUCT, int(MATHIS_BITS * SECOND_US / sqrt(loss)))


def leaned(
    segments: int, retransmits: int, all_segments: int, all_retransmits: int, losses: int = 1
) -> float:
    """Return the loss of some packets, leaning on the loss of all packets.

    The estimate adds as many packets as hold `losses` losses of all. If few packets were sent, it
    is mostly the loss of all. `all_retransmits` is above 0.
    """
    return (retransmits + losses) / (segments + losses * all_segments / all_retransmits)


class Flows(msgspec.Struct, frozen=True, kw_only=True):
    """How much one path carries, by its round trip.

    The rate times the round trip is much the same for paths of one length. `octaves` has its median
    for each octave, ascending: the bits of the round trip in microseconds, then bits a second x
    microseconds.
    """

    octaves: tuple[tuple[int, int], ...]

    def bits(self, rtt_us: int) -> float:
        """Return bits a second; infinite if no flow was found to be bounded."""
        if not self.octaves:
            return float("inf")
        octave = rtt_us.bit_length()
        _, product = min(self.octaves, key=lambda entry: (abs(entry[0] - octave), entry[0]))
        return product / max(rtt_us, 1)


def flows_of(reports: Sequence[Sequence[PeerObservation]], members: Collection[bytes]) -> Flows:
    """Compute the flows from what each member reported of others.

    Args:
        reports: the observations of each member.
        members: short names. Observations of other peers do not count.
    """
    groups = max(min(GROUPS, len(reports)), len(reports) // GROUP)
    counts: list[dict[int, tuple[int, int]]] = [{} for _ in range(groups)]
    carried: dict[int, list[int]] = {}
    for by, observations in enumerate(reports):
        group = counts[by % groups]
        for seen in {
            seen.who: seen for seen in observations if seen.who in members and seen.rtt_us
        }.values():
            octave = seen.rtt_us.bit_length()
            segments, retransmits = group.get(octave, (0, 0))
            group[octave] = (
                segments + seen.segments,
                retransmits + min(seen.retransmits, seen.segments),
            )
            if seen.flow_bits:
                carried.setdefault(octave, []).append(seen.flow_bits * seen.rtt_us)
    products = []
    for octave in sorted({octave for group in counts for octave in group}):
        losses = [loss for group in counts if (loss := _loss(group, octave)) is not None]
        loss = sorted(losses)[(len(losses) - 1) // 2] if losses else 0.0
        if loss:
            products.append((octave, max(product_of(loss), median(carried.get(octave, [0])))))
    return Flows(octaves=tuple(products))


def _loss(group: dict[int, tuple[int, int]], octave: int) -> float | None:
    """Return the loss of one octave in one group of members, leaning on all its paths."""
    all_segments, all_retransmits = (
        sum(segments for segments, _ in group.values()),
        sum(retransmits for _, retransmits in group.values()),
    )
    if not all_segments:
        return None
    if not all_retransmits:
        return 0.0
    return leaned(*group.get(octave, (0, 0)), all_segments, all_retransmits)
