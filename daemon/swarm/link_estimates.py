"""What a node measures of the others, and its own place in the network: what its Ready says, and
what the page shows of its links.

Round trips and losses come from live connections, bandwidths from the transfers of rounds: what a
member had to send, over the time until the part for us was here, is its uplink seen from our side;
what it had to receive, over the time until it had ours, its downlink.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from protocol.digest import Digest, digest
from protocol.identity import PeerId
from protocol.network.coordinate import LEAST_RTT_US, ORIGIN, Coordinate, moved
from protocol.network.flows import leaned, product_of
from protocol.network.peer_health import QUARANTINED, PeerHealth, look, saw
from protocol.network.peer_observation import (
    MOST_BITS,
    MOST_SEGMENTS,
    PeerObservation,
    choose,
    short_name,
)
from protocol.network.quality import LinkMeasurement, LinkQuality, observe
from protocol.network.samples import SampleWindow
from protocol.ports.network import Link

# Rounds in which a link was seen: the busiest counts, since each sees no more than the exchange
# asked of it.
REMEMBERED = 4
# Rounds in which a peer was in a plan with us, as far back as a sight tells.
OUTCOMES = 16
# Shorter transfers say more of buffers and of the scheduler than of the link.
LEAST_S = 0.2
LEAST_BYTES = 1 << 18
# A transfer of fewer is mostly waiting, and says nothing of how wide the link is.
LEAST_ROUND_TRIPS = 4
# Sent to a peer before its losses say anything: one in a thousand is what decides.
LEAST_SEGMENTS = 500
# A flow slower than this share of what its losses allow was bounded by something else than its
# path.
ROOM = 0.8
# Losses of all paths that go into what one path is thought to lose: from so many follows what a
# path carries within.
LEANING = 8
# 1 / (2 x sqrt(8)) = 18%, as near as `ROOM` needs. With one, a path that lost nothing yet by chance
# was taken for twice as wide, and what it bounded for a narrow link. Of the most that our own link
# was seen to carry: then it may have been the bound, and not the other's.
BUSY = 0.8
# Links at a time: among many the others' turn comes with the next look.
LOOKED_AT = 16
# Remembered, half a KB each; the one measured longest ago makes room.
MAX_NEIGHBOURS = 1024


Seen = tuple[bool, int]
"""Whether the path and our own link had room left, and bits a second."""

NOTHING: Seen = (False, 0)


class LinkEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """One other, as seen from here."""

    rtt: SampleWindow = SampleWindow()  # whole microseconds
    at: Coordinate | None = None  # by its own word, in its last Ready
    quality: LinkQuality = LinkQuality()
    # The last with room, then the last without, the newest last.
    ups: tuple[Seen, ...] = ()
    downs: tuple[Seen, ...] = ()
    # The most that one flow from it or to it carried, bits a second x the round trip in
    # microseconds at that time.
    carried: int = 0
    standing: PeerHealth = PeerHealth()
    # Of rounds with us in one plan: whether it was there to the end.
    outcomes: tuple[bool, ...] = ()
    segments: int = 0
    again: int = 0

    @property
    def loss(self) -> float | None:
        """The share of what we sent it that had to be sent again; None while that is too little to
        tell.
        """
        return self.again / self.segments if self.segments >= LEAST_SEGMENTS else None

    @property
    def up(self) -> Seen:
        """The busiest that its uplink was seen; what was seen with room on the path goes before
        what was not.
        """
        return max(self.ups, default=NOTHING)

    @property
    def down(self) -> Seen:
        """As `up`, of its downlink."""
        return max(self.downs, default=NOTHING)

    @property
    def bits_per_second(self) -> int:
        """The most that its link was seen to carry, either way; 0 when it was not seen at work yet,
        as of nearly all among many.
        """
        return max(self.up[1], self.down[1]) if self.ups or self.downs else 0

    def seen(
        self,
        all_bytes: int,
        our_bytes: int,
        seconds: float,
        trips: float,
        busy: float,
        flow_bits: int,
    ) -> Seen | None:
        """What a transfer of `all_bytes`, ours among them, says of a link; `trips` round trips of
        it were waiting, our own link was `busy`, and the path carries `flow_bits`.

        None where it was short.
        """
        rtt_s = (self.rtt.settled or 0) / 1e6
        seconds -= trips * rtt_s
        if all_bytes < LEAST_BYTES or seconds < max(LEAST_S, LEAST_ROUND_TRIPS * rtt_s):
            return None
        room = not flow_bits or 8 * our_bytes / seconds < ROOM * flow_bits
        return room and busy < BUSY, min(MOST_BITS, int(8 * all_bytes / seconds))

    @property
    def flow_seen(self) -> int:
        """What one flow was seen to carry, bits a second; as much less as the path has become
        longer since.
        """
        return min(MOST_BITS, self.carried // (self.rtt.settled or LEAST_RTT_US))

    def carrying(self, all_bytes: int, our_bytes: int, seconds: float) -> int:
        """`carried` after a transfer.

        One of a few round trips counts, too: whatever it waited for, so much the path carried.
        (Without those, on a busy machine whose pings take a second, what losses allow looked ten
        times too little.)
        """
        if all_bytes < LEAST_BYTES or seconds < LEAST_S:
            return self.carried
        return max(self.carried, int(8 * our_bytes / seconds) * (self.rtt.settled or 0))


_STRANGER = LinkEstimate()


class LinkEstimates:
    """All of them. Pure: told what happened, asked what it comes to."""

    def __init__(self, me: PeerId) -> None:
        self.coordinate: Coordinate | None = None  # None before anything was measured
        self._me = me
        self._salt = digest(me.encode())[:3]
        self._turn = 0
        self._known: dict[PeerId, LinkEstimate] = {}  # the one measured longest ago first
        self._segments, self._again = 0, 0  # of all of them

    def of(self, peer: PeerId) -> LinkEstimate:
        return self._known.get(peer, _STRANGER)

    def flow_bits(self, peer: PeerId) -> int:
        """What one flow to it carries, by its losses, or what one was seen to carry where that is
        more; 0 where nothing was ever lost: then no bound was found.

        (Taking one loss for none, a busy machine's round trips of seconds made every path look
        hopeless.) Of a path on which little was sent the losses are as much those of all: a path
        that lost one packet in a thousand by chance is no wider than the others.
        """
        known = self.of(peer)
        if not self._again or self._segments < LEAST_SEGMENTS or not known.rtt.settled:
            return 0
        bound = (
            product_of(leaned(known.segments, known.again, self._segments, self._again, LEANING))
            // known.rtt.settled
        )
        return min(MOST_BITS, max(bound, known.flow_seen))

    def _put(self, peer: PeerId, neighbour: LinkEstimate) -> None:
        self._forget(peer)
        if len(self._known) >= MAX_NEIGHBOURS:
            self._forget(next(iter(self._known)))
        self._known[peer] = neighbour
        self._segments += neighbour.segments
        self._again += neighbour.again

    def _forget(self, peer: PeerId) -> None:
        known = self._known.pop(peer, _STRANGER)
        self._segments -= known.segments
        self._again -= known.again

    def linked(self, links: Sequence[Link]) -> None:
        """Another look at the live connections: a sample of each, and a step towards where their
        round trips put us.
        """
        turn = self._turn % len(links) if len(links) > LOOKED_AT else 0
        self._turn = turn + LOOKED_AT
        for link in (*links[turn:], *links[:turn])[:LOOKED_AT]:
            if link.rtt_s is None:
                continue
            known = self.of(link.peer)
            rtt_us = max(LEAST_RTT_US, round(1e6 * link.rtt_s))
            known = msgspec.structs.replace(
                known, rtt=known.rtt.add(rtt_us), segments=link.segments, again=link.retransmits
            )
            jitter_s = link.jitter_s if link.jitter_s is not None else known.rtt.spread / 1e6
            bits = known.bits_per_second
            measured = LinkMeasurement(
                rtt_s=link.rtt_s,
                jitter_s=jitter_s,
                loss=known.loss,
                bits_per_second=float(bits) if bits else None,
            )
            self._put(
                link.peer, msgspec.structs.replace(known, quality=observe(known.quality, measured))
            )
            settled = known.rtt.settled
            if settled is not None:
                own = self.coordinate or ORIGIN
                self.coordinate = (
                    moved(own, known.at, settled, self._salt) if known.at is not None else own
                )

    def placed(self, places: Iterable[tuple[PeerId, Coordinate | None]]) -> None:
        """Where others say they are, in the offers of a plan."""
        for peer, at in places:
            if peer != self._me:
                self._put(peer, msgspec.structs.replace(self.of(peer), at=at))

    def sent_us(
        self, peer: PeerId, all_bytes: int, our_bytes: int, seconds: float, busy: float = 0.0
    ) -> None:
        """It sent `all_bytes` to everybody, and ours of them were here after `seconds`, in which
        our downlink was `busy`: what it carried, as a share of the most that it was seen to
        carry.
        """
        known = self.of(peer)
        seen = known.seen(all_bytes, our_bytes, seconds, 0.5, busy, self.flow_bits(peer))
        ups = known.ups if seen is None else _remembered(known.ups, seen)
        self._put(
            peer,
            msgspec.structs.replace(
                known, ups=ups, carried=known.carrying(all_bytes, our_bytes, seconds)
            ),
        )

    def took(
        self, peer: PeerId, all_bytes: int, our_bytes: int, seconds: float, busy: float = 0.0
    ) -> None:
        """It received `all_bytes` from everybody, and had acknowledged ours of them after
        `seconds`, in which our uplink was `busy`.
        """
        known = self.of(peer)
        seen = known.seen(all_bytes, our_bytes, seconds, 1.0, busy, self.flow_bits(peer))
        downs = known.downs if seen is None else _remembered(known.downs, seen)
        self._put(
            peer,
            msgspec.structs.replace(
                known, downs=downs, carried=known.carrying(all_bytes, our_bytes, seconds)
            ),
        )

    def together(self, peers: Iterable[PeerId], there: frozenset[PeerId], now: float) -> None:
        """A round of a plan with `peers` was certified; those in `there` were there to the end."""
        for peer in peers:
            if peer != self._me:
                known = self.of(peer)
                outcomes = (*known.outcomes, peer in there)[-OUTCOMES:]
                standing = saw(known.standing, peer in there, now)
                self._put(
                    peer, msgspec.structs.replace(known, outcomes=outcomes, standing=standing)
                )

    def avoided(self, peers: Iterable[PeerId], now: float) -> frozenset[PeerId]:
        """Of these the ones in quarantine. Whose is over is on probation from this look on."""
        quarantined = set()
        for peer in peers:
            known = self._known.get(peer)
            if known is not None and known.standing.name == QUARANTINED:
                standing = look(known.standing, now)
                self._known[peer] = msgspec.structs.replace(known, standing=standing)
                if standing.name == QUARANTINED:
                    quarantined.add(peer)
        return frozenset(quarantined)

    def sights(self, parent: Digest) -> tuple[PeerObservation, ...]:
        """What to say of others in the round after `parent`: of those whose links were seen at
        work, or where there are none of any.
        """
        met = [(peer, known) for peer, known in self._known.items() if known.rtt.settled]
        busy = [(peer, known) for peer, known in met if known.ups or known.downs] or met
        return choose(self._me, [(peer, _sight(peer, known)) for peer, known in busy], parent)


def _remembered(before: tuple[Seen, ...], seen: Seen) -> tuple[Seen, ...]:
    """The last few.

    What was seen without room says what a link carries at least, and pushes nothing out that was
    seen with room.
    """
    free = [one for one in (*before, seen) if one[0]][-REMEMBERED:]
    bounded = [one for one in (*before, seen) if not one[0]][-REMEMBERED:]
    return (*free, *bounded)


def _sight(peer: PeerId, known: LinkEstimate) -> PeerObservation:
    share = min(1.0, MOST_SEGMENTS / (known.segments or 1))
    return PeerObservation(
        who=short_name(peer),
        rtt_us=known.rtt.settled or 0,
        uplink_bps=known.up[1],
        downlink_bps=known.down[1],
        flow_bits=known.flow_seen,
        segments=int(share * known.segments),
        retransmits=int(share * min(known.again, known.segments)),
        rounds=len(known.outcomes),
        failed=known.outcomes.count(False),
        bounded=any(seen != NOTHING and not seen[0] for seen in (known.up, known.down)),
    )
