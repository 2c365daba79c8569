"""Who else is in the run: the latest signed beacon of every peer, and whether it is alive.

A peer is alive while its beacons come and no connection to it was seen to break since the last one. Alive and at our tip is what
a leader waits for; everything else here is for people to look at.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import Event, PeerDown, PeerForgotten, PeerReport, PeerUp
from protocol.messages import Beacon
from protocol.ports import Endpoint, Link

BEACON_S = 5.0  # between beacons: the page's idea of now
SILENCE_S = 4 * BEACON_S  # without a beacon for this long a peer is forgotten: three may be lost
MAX_MEMBERS = 4096  # remembered at once; the one heard longest ago makes room


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A peer as last heard of, on our monotonic clock."""

    beacon: Beacon
    heard_s: float
    lost: bool = False  # a connection broke and no newer beacon came since


class Members:
    """The table of members. Pure but for the events it records."""

    def __init__(self, me: PeerId, record: Callable[[Event], None], admit: Callable[[Endpoint], None]) -> None:
        self._me = me
        self._record = record
        self._admit = admit
        self._members: dict[PeerId, Member] = {}
        self._links: dict[PeerId, Link] = {}

    def take(self, peer: PeerId, beacon: Beacon, now: float) -> bool:
        """A verified beacon. True when it changes who is there, or where: most say the same as before, and with a thousand members what
        follows from each would take all of a node's time."""
        known = self._members.get(peer)
        if peer == self._me or (known is not None and beacon.serial <= known.beacon.serial):
            return False
        if known is None and len(self._members) >= MAX_MEMBERS:
            del self._members[min(self._members, key=lambda p: self._members[p].heard_s)]
        self._members[peer] = Member(beacon=beacon, heard_s=now)
        endpoint = beacon.endpoint
        if endpoint is not None and endpoint.peer == peer and (known is None or known.beacon.endpoint != endpoint):
            self._admit(endpoint)
        self._record(self._report(peer, beacon))
        return known is None or known.lost or (known.beacon.tip, known.beacon.role) != (beacon.tip, beacon.role)

    def link_up(self, link: Link) -> None:
        self._links[link.peer] = link
        self._record(PeerUp(peer=link.peer, path=link.path, address=link.address))

    def link_down(self, peer: PeerId, reason: str) -> None:
        """The connection broke: until its next beacon the peer is not taken to be alive."""
        self._links.pop(peer, None)
        known = self._members.get(peer)
        if known is not None:
            self._members[peer] = msgspec.structs.replace(known, lost=True)
        self._record(PeerDown(peer=peer, reason=reason))

    def measured(self, links: tuple[Link, ...]) -> None:
        """Fresh round-trip times."""
        self._links = {link.peer: link for link in links}
        for peer, link in self._links.items():
            member = self._members.get(peer)
            if member is not None and link.rtt_s is not None:
                self._record(self._report(peer, member.beacon))

    def expire(self, now: float) -> None:
        """Forget who has been silent for too long."""
        for peer, member in list(self._members.items()):
            if now - member.heard_s > SILENCE_S:
                del self._members[peer]
                self._record(PeerForgotten(peer=peer, silent_s=now - member.heard_s))

    def live_at(self, tip: Digest) -> frozenset[PeerId]:
        """Other nodes that are alive and hold the anchor of `tip`."""
        return frozenset(
            peer for peer, member in self._members.items() if member.beacon.role == "node" and member.beacon.tip == tip and not member.lost
        )

    def ahead_of(self, number: int) -> list[PeerId]:
        """Nodes whose tip has a higher number, the furthest first."""
        ahead = [p for p, m in self._members.items() if m.beacon.role == "node" and m.beacon.number > number and not m.lost]
        return sorted(ahead, key=lambda peer: -self._members[peer].beacon.number)

    def strangers(self, knows: Callable[[Digest], bool], number: int) -> list[PeerId]:
        """Nodes from certificate `number` on whose tip we do not know: they are ahead, or stand on a branch that we have not seen."""
        return [
            p
            for p, m in self._members.items()
            if m.beacon.role == "node" and m.beacon.number >= number and not m.lost and not knows(m.beacon.tip)
        ]

    def holders_of(self, tip: Digest) -> list[PeerId]:
        """Nodes that say they hold the anchor of `tip`, the nearest first."""
        far = float("inf")
        near = {peer: link.rtt_s if link.rtt_s is not None else far for peer, link in self._links.items()}
        return sorted(self.live_at(tip), key=lambda peer: (near.get(peer, far), peer))

    def endpoint_of(self, peer: PeerId, fingerprint: Digest, fingerprint_of: Callable[[Endpoint], Digest]) -> Endpoint | None:
        """The bulk endpoint with this fingerprint, once the peer's beacon brought it."""
        member = self._members.get(peer)
        if member is None or member.beacon.endpoint is None or fingerprint_of(member.beacon.endpoint) != fingerprint:
            return None
        return member.beacon.endpoint

    def _report(self, peer: PeerId, beacon: Beacon) -> PeerReport:
        link = self._links.get(peer)
        return PeerReport(
            peer=peer,
            name=beacon.name,
            role=beacon.role,
            number=beacon.number,
            tip=beacon.tip.hex(),
            phase=beacon.phase,
            samples=beacon.samples,
            loss=beacon.loss,
            samples_per_second=beacon.samples_per_second,
            device=beacon.device,
            path=link.path if link else "",
            address=link.address if link else "",
            rtt_s=link.rtt_s if link else None,
        )
