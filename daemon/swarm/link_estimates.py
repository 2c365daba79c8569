"""What this node measures of its links to others, and its own place in the network.

The figures travel in the node's Ready message, and the page shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from daemon.swarm.link_estimate import MIN_SEGMENTS, NOTHING, LinkEstimate, remember
from protocol.digest import Digest, digest
from protocol.identity import PeerId
from protocol.network.coordinate import LEAST_RTT_US, ORIGIN, Coordinate, moved
from protocol.network.flows import leaned, product_of
from protocol.network.peer_health import QUARANTINED, look, saw
from protocol.network.peer_observation import (
    MOST_BITS,
    MOST_SEGMENTS,
    PeerObservation,
    choose,
    short_name,
)
from protocol.network.quality import LinkMeasurement, observe
from protocol.ports.network import Link

# Rounds for which a peer's attendance is kept, as far back as an observation reports.
OUTCOMES = 16
# A path's losses are averaged with those of this many paths' worth of all paths. The bandwidth that
# follows is within 1 / (2 x sqrt(8)) = 18%, as near as `link_estimate.ROOM` needs. With one, a path
# that had lost nothing by chance looked twice as wide as it was.
SHARED_LOSS_PATHS = 8
# Links sampled at a time. Among many links, the others follow at the next sample.
LINKS_PER_LOOK = 16
# Peers remembered, half a KB each. The one measured longest ago makes room.
MAX_PEERS = 1024

_UNKNOWN = LinkEstimate()


class LinkEstimates:
    """The estimates of all peers, and this node's own place in the network. Pure."""

    def __init__(self, me: PeerId) -> None:
        # None before the first measurement.
        self.coordinate: Coordinate | None = None
        self._me = me
        self._salt = digest(me.encode())[:3]
        self._turn = 0
        # The peer measured longest ago comes first.
        self._known: dict[PeerId, LinkEstimate] = {}
        # Sums over all peers.
        self._segments, self._retransmits = 0, 0

    def of(self, peer: PeerId) -> LinkEstimate:
        return self._known.get(peer, _UNKNOWN)

    def flow_bits(self, peer: PeerId) -> int:
        """What one flow to the peer carries, in bits per second; 0 where no bound was found.

        The bound follows from the path's losses, or from what a flow carried where that is more.
        Without any loss there is no bound: assuming one loss made every path of a busy machine,
        with its round trips of seconds, look hopeless. A path on which little was sent shares the
        losses of all paths, since a chance loss of one packet in a thousand proves nothing.
        """
        known = self.of(peer)
        if not self._retransmits or self._segments < MIN_SEGMENTS or not known.rtt.settled:
            return 0
        bound = (
            product_of(
                leaned(
                    known.segments,
                    known.retransmits,
                    self._segments,
                    self._retransmits,
                    SHARED_LOSS_PATHS,
                )
            )
            // known.rtt.settled
        )
        return min(MOST_BITS, max(bound, known.flow_seen))

    def _put(self, peer: PeerId, estimate: LinkEstimate) -> None:
        self._forget(peer)
        if len(self._known) >= MAX_PEERS:
            self._forget(next(iter(self._known)))
        self._known[peer] = estimate
        self._segments += estimate.segments
        self._retransmits += estimate.retransmits

    def _forget(self, peer: PeerId) -> None:
        known = self._known.pop(peer, _UNKNOWN)
        self._segments -= known.segments
        self._retransmits -= known.retransmits

    def note_links(self, links: Sequence[Link]) -> None:
        """Sample the live connections, and move this node's coordinate by their round trips."""
        turn = self._turn % len(links) if len(links) > LINKS_PER_LOOK else 0
        self._turn = turn + LINKS_PER_LOOK
        for link in (*links[turn:], *links[:turn])[:LINKS_PER_LOOK]:
            if link.rtt_s is None:
                continue
            known = self.of(link.peer)
            rtt_us = max(LEAST_RTT_US, round(1e6 * link.rtt_s))
            known = msgspec.structs.replace(
                known,
                rtt=known.rtt.add(rtt_us),
                segments=link.segments,
                retransmits=link.retransmits,
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
                    moved(own, known.coordinate, settled, self._salt)
                    if known.coordinate is not None
                    else own
                )

    def note_coordinates(self, places: Iterable[tuple[PeerId, Coordinate | None]]) -> None:
        """Note the coordinates that peers report in the offers of a plan."""
        for peer, at in places:
            if peer != self._me:
                self._put(peer, msgspec.structs.replace(self.of(peer), coordinate=at))

    def note_uplink(
        self, peer: PeerId, all_bytes: int, our_bytes: int, seconds: float, busy: float = 0.0
    ) -> None:
        """Note a peer's sending: `all_bytes` to all peers, of which ours arrived in `seconds`.

        `busy` is what our downlink carried meanwhile, as a share of the most that it ever carried.
        """
        known = self.of(peer)
        seen = known.seen(
            all_bytes, our_bytes, seconds, 0.5, busy, self.flow_bits(peer), known.up[1]
        )
        ups = known.ups if seen is None else remember(known.ups, seen)
        self._put(
            peer,
            msgspec.structs.replace(
                known, ups=ups, carried=known.carrying(all_bytes, our_bytes, seconds)
            ),
        )

    def note_downlink(
        self, peer: PeerId, all_bytes: int, our_bytes: int, seconds: float, busy: float = 0.0
    ) -> None:
        """Note a peer's receiving: `all_bytes` in all, of which it acknowledged ours in `seconds`.

        `busy` is what our uplink carried meanwhile, as a share of the most that it ever carried.
        """
        known = self.of(peer)
        seen = known.seen(
            all_bytes, our_bytes, seconds, 1.0, busy, self.flow_bits(peer), known.down[1]
        )
        downs = known.downs if seen is None else remember(known.downs, seen)
        self._put(
            peer,
            msgspec.structs.replace(
                known, downs=downs, carried=known.carrying(all_bytes, our_bytes, seconds)
            ),
        )

    def note_round(self, peers: Iterable[PeerId], there: frozenset[PeerId], now: float) -> None:
        """Note a certified round of a plan with `peers`; those in `there` stayed to the end."""
        for peer in peers:
            if peer != self._me:
                known = self.of(peer)
                outcomes = (*known.outcomes, peer in there)[-OUTCOMES:]
                health = saw(known.health, peer in there, now)
                self._put(peer, msgspec.structs.replace(known, outcomes=outcomes, health=health))

    def quarantined(self, peers: Iterable[PeerId], now: float) -> frozenset[PeerId]:
        """The peers in quarantine. A peer whose quarantine is over is on probation from now on."""
        quarantined = set()
        for peer in peers:
            known = self._known.get(peer)
            if known is not None and known.health.name == QUARANTINED:
                health = look(known.health, now)
                self._known[peer] = msgspec.structs.replace(known, health=health)
                if health.name == QUARANTINED:
                    quarantined.add(peer)
        return frozenset(quarantined)

    def observations(self, parent: Digest) -> tuple[PeerObservation, ...]:
        """What to report about peers in the round after `parent`.

        Peers whose links carried a transfer are reported; where there are none, all peers.
        """
        met = [(peer, known) for peer, known in self._known.items() if known.rtt.settled]
        busy = [(peer, known) for peer, known in met if known.ups or known.downs] or met
        return choose(self._me, [(peer, _observation(peer, known)) for peer, known in busy], parent)


def _observation(peer: PeerId, known: LinkEstimate) -> PeerObservation:
    share = min(1.0, MOST_SEGMENTS / (known.segments or 1))
    return PeerObservation(
        who=short_name(peer),
        rtt_us=known.rtt.settled or 0,
        uplink_bps=known.up[1],
        downlink_bps=known.down[1],
        flow_bits=known.flow_seen,
        segments=int(share * known.segments),
        retransmits=int(share * min(known.retransmits, known.segments)),
        rounds=len(known.outcomes),
        failed=known.outcomes.count(False),
        bounded=any(seen != NOTHING and not seen[0] for seen in (known.up, known.down)),
    )
