"""What one path carries, by its round trip: from what everybody together lost.

A flow carries at most 1.22 x MSS / (RTT x sqrt(loss)) (Mathis et al. 1997,
https://doi.org/10.1145/263932.264023). The losses of one path are few: of two hundred packets none
are lost at a thousandth, or one, which would be five times the truth. So everybody says counts, and
they are added up, octave of round trips by octave; an octave in which little was sent leans on the
others. The median of several groups of members counts, so that a member that makes up counts spoils
one group.

Integers, the four operations and the square root, which is exact everywhere: the same on every
machine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import sqrt

import msgspec

from protocol.network.peer_observation import PeerObservation
from protocol.network.samples import median

MATHIS_BITS = 1.22 * 8 * 1448  # of a segment, with the paper's constant
# So many groups at least where there are members enough, and of about so many members each.
GROUPS, GROUP = 7, 8
SECOND_US = 1_000_000
MOST_PRODUCT = 1 << 62


def product_of(loss: float) -> int:
    """What a flow carries at most, bits a second x the round trip in microseconds, where a share
    `loss` > 0 of its packets is lost.
    """
    return min(MOST_PRODUCT, int(MATHIS_BITS * SECOND_US / sqrt(loss)))


def leaned(segments: int, again: int, all_segments: int, all_again: int, losses: int = 1) -> float:
    """The loss of some packets, leaning on as many as `losses` losses of all: where little was
    sent, it is mostly theirs.

    `all_again` > 0.
    """
    return (again + losses) / (segments + losses * all_segments / all_again)


class Flows(msgspec.Struct, frozen=True, kw_only=True):
    """What one path carries, by its round trip: rate x round trip is much the same for paths of one
    length; its median is kept for each octave.
    """

    # Bits of the round trip in microseconds; bits a second x microseconds. Ascending.
    octaves: tuple[tuple[int, int], ...]

    def bits(self, rtt_us: int) -> float:
        """Bits a second; infinite where no flow was ever found to be bounded."""
        if not self.octaves:
            return float("inf")
        octave = rtt_us.bit_length()
        _, product = min(self.octaves, key=lambda entry: (abs(entry[0] - octave), entry[0]))
        return product / max(rtt_us, 1)


def flows_of(said: Sequence[Sequence[PeerObservation]], members: Collection[bytes]) -> Flows:
    """From what each member said of others; of `members` alone, by their short names."""
    groups = max(min(GROUPS, len(said)), len(said) // GROUP)
    counts: list[dict[int, tuple[int, int]]] = [{} for _ in range(groups)]
    carried: dict[int, list[int]] = {}
    for by, sights in enumerate(said):
        group = counts[by % groups]
        for sight in {
            sight.who: sight for sight in sights if sight.who in members and sight.rtt_us
        }.values():
            octave = sight.rtt_us.bit_length()
            segments, again = group.get(octave, (0, 0))
            group[octave] = (
                segments + sight.segments,
                again + min(sight.retransmits, sight.segments),
            )
            if sight.flow_bits:
                carried.setdefault(octave, []).append(sight.flow_bits * sight.rtt_us)
    products = []
    for octave in sorted({octave for group in counts for octave in group}):
        told = [loss for group in counts if (loss := _loss(group, octave)) is not None]
        loss = sorted(told)[(len(told) - 1) // 2] if told else 0.0
        if loss:
            products.append((octave, max(product_of(loss), median(carried.get(octave, [0])))))
    return Flows(octaves=tuple(products))


def _loss(group: dict[int, tuple[int, int]], octave: int) -> float | None:
    """Of paths of one length, as one group of members has it, leaning on all paths that it has."""
    all_segments, all_again = (
        sum(segments for segments, _ in group.values()),
        sum(again for _, again in group.values()),
    )
    if not all_segments:
        return None
    if not all_again:
        return 0.0
    return leaned(*group.get(octave, (0, 0)), all_segments, all_again)
