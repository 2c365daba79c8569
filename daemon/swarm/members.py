"""The other peers of the run: the latest signed beacon of each, and whether the peer is alive.

A peer is alive while its beacons come and no connection to it broke since the last one. A leader
waits for peers that are alive and at its tip. Everything else here is for people to look at.

A key costs nothing, so the beacon of a stranger, whose key no certificate of ours names, is worth
little. Strangers slow our own beacons down to a fifth at most (`counted_members`). No round waits
for a stranger that was alive for a while and took no part (`awaited_at`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from daemon.swarm.beacon_schedule import silence_s
from daemon.swarm.link_estimates import LinkEstimates
from daemon.swarm.live_nodes import LiveNodes
from daemon.swarm.member_record import MemberRecord, advanced
from daemon.swarm.peer_report import peer_report, peer_scored
from daemon.swarm.task_agreement import TaskAgreement
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import JournalEvent, PeerDown, PeerForgotten, PeerReport, PeerUp
from protocol.messages.beacon import Beacon
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import Link

# Remembered at once, 1 KB each. The peer heard longest ago makes room.
MAX_MEMBERS = 1 << 14
# Strangers that count for the rate of our beacons, for each member and each connected peer.
STRANGERS_PER_MEMBER = 4
# Members by our certificates. The ones certified last are kept.
PROVEN_KEPT = 1024


class Members:
    """The table of peers. Pure but for the events that it records."""

    def __init__(
        self, me: PeerId, record: Callable[[JournalEvent], None], admit: Callable[[Endpoint], None]
    ) -> None:
        self._me = me
        self._record = record
        self._admit = admit
        # The peer heard longest ago comes first.
        self._members: dict[PeerId, MemberRecord] = {}
        self._links: dict[PeerId, Link] = {}
        self._live = LiveNodes()
        # The member certified longest ago comes first.
        self._proven: dict[PeerId, None] = {}
        # When each peer arrived, or last did what only a member does.
        self._took_part: dict[PeerId, float] = {}
        self.link_estimates = LinkEstimates(me)
        self.tasks = TaskAgreement(record)
        # Grows when a peer arrives, leaves or changes its tip.
        self.version = 0

    def __len__(self) -> int:
        return len(self._members)

    def receive(self, peer: PeerId, beacon: Beacon, now: float) -> bool:
        """Note a verified beacon.

        Returns:
            Whether a peer arrived or changed its tip. Most beacons repeat the last one, and with a
            thousand members acting on each would take all of a node's time.
        """
        known = self._members.get(peer)
        if peer == self._me or (known is not None and beacon.serial <= known.beacon.serial):
            return False
        if known is None and len(self._members) >= MAX_MEMBERS:
            self._remove(
                next(
                    (one for one in self._members if one not in self._proven),
                    next(iter(self._members)),
                )
            )
        if known is None or (peer in self._links and advanced(known.beacon, beacon)):
            self._took_part[peer] = now
        apart = not self.tasks.heard(peer, beacon.task) if beacon.role == "node" else False
        changed = self._put(peer, MemberRecord(beacon=beacon, heard_s=now, apart=apart))
        endpoint = beacon.endpoint
        if (
            endpoint is not None
            and endpoint.peer == peer
            and (known is None or known.beacon.endpoint != endpoint)
        ):
            self._admit(endpoint)
        self._record(self._report(peer, beacon))
        if (scored := peer_scored(peer, beacon)) is not None:
            self._record(scored)
        return changed

    def _put(self, peer: PeerId, member: MemberRecord) -> bool:
        """Store a record. Returns whether it changes who is alive, or at which tip."""
        known = self._members.get(peer)
        if known is not None and known.heard_s != member.heard_s:
            # The record moves to the end, as the one heard last.
            del self._members[peer]
        self._members[peer] = member
        if (
            known is not None
            and known.lost == member.lost
            and known.apart == member.apart
            and known.beacon.tip == member.beacon.tip
            and known.beacon.role == member.beacon.role
        ):
            # Nearly every beacon repeats the last one.
            return False
        before = known.beacon.tip if known is not None and known.is_live_node else None
        after = member.beacon.tip if member.is_live_node else None
        if before != after or known is None:
            self.version += 1
            self._live.discard(peer, before)
            if after is not None:
                self._live.add(peer, after)
        return True

    def _remove(self, peer: PeerId) -> MemberRecord:
        known = self._members.pop(peer)
        self._took_part.pop(peer, None)
        self.version += 1
        self._live.discard(peer, known.beacon.tip if known.is_live_node else None)
        return known

    def has_other_task(self, peer: PeerId) -> bool:
        """Whether a peer is known to train something else."""
        known = self._members.get(peer)
        return known is not None and known.apart

    def compare_again(self, name: bytes | None = None) -> None:
        """Note that our knowledge of one task, or of every task, has changed."""
        for peer, member in list(self._members.items()):
            if member.beacon.role == "node" and name in (None, member.beacon.task):
                apart = not self.tasks.heard(peer, member.beacon.task)
                if apart != member.apart:
                    self._put(peer, msgspec.structs.replace(member, apart=apart))

    def links_up(self, links: Iterable[Link]) -> None:
        for link in links:
            self.link_up(link)

    def link_up(self, link: Link) -> None:
        self._links[link.peer] = link
        self._record(PeerUp(peer=link.peer, path=link.path, address=link.address))

    def link_down(self, peer: PeerId, reason: str) -> None:
        """Note a broken connection: until its next beacon the peer does not count as alive."""
        self._links.pop(peer, None)
        known = self._members.get(peer)
        if known is not None:
            self._put(peer, msgspec.structs.replace(known, lost=True))
        self._record(PeerDown(peer=peer, reason=reason))

    def measured(self, links: tuple[Link, ...]) -> None:
        """Note fresh round-trip times."""
        self._links = {link.peer: link for link in links}
        self.link_estimates.note_links(links)
        for peer, link in self._links.items():
            member = self._members.get(peer)
            if member is not None and link.rtt_s is not None:
                self._record(self._report(peer, member.beacon))

    def expire(self, now: float) -> None:
        """Forget peers that have been silent for too long."""
        timeout_s = silence_s(len(self._members))
        while self._members:
            peer, member = next(iter(self._members.items()))
            if now - member.heard_s <= timeout_s:
                return
            self._remove(peer)
            self._record(PeerForgotten(peer=peer, silent_s=now - member.heard_s))

    def lives(self, peer: PeerId) -> bool:
        """Whether a node is alive, at whatever tip."""
        known = self._members.get(peer)
        return known is not None and known.is_live_node

    def live_at(self, tip: Digest) -> frozenset[PeerId]:
        """Other nodes that are alive and hold the anchor of `tip`."""
        return self._live.at(tip)

    def training_at(self, tip: Digest) -> frozenset[PeerId]:
        """The nodes of `live_at` that still train for the round after `tip`.

        A round waits for them. Once our certificates name members, only members count. Keys are
        free, and a few of a stranger's could hold up each round.
        """
        training = frozenset(peer for peer in self.live_at(tip) if self._members[peer].is_training)
        return training & self._proven.keys() if self._proven else training

    # ---------------------------------------------------------------------------------- queries

    def prove(self, peers: Iterable[PeerId]) -> None:
        """Note that our lineage names these peers as members."""
        for peer in peers:
            self._proven.pop(peer, None)
            self._proven[peer] = None
        while len(self._proven) > PROVEN_KEPT:
            del self._proven[next(iter(self._proven))]

    @property
    def proven(self) -> frozenset[PeerId]:
        """Members by our certificates."""
        return frozenset(self._proven)

    def took_part(self, peer: PeerId, now: float) -> None:
        """Note that a peer offered to a round."""
        if peer in self._took_part:
            self._took_part[peer] = now

    def rank(self, peer: PeerId) -> int:
        """0 for members by our certificates, 1 for peers that are connected, 2 for others."""
        return 0 if peer in self._proven else 1 if peer in self._links else 2

    def awaited_at(self, tip: Digest, now: float, timeout_s: float) -> frozenset[PeerId]:
        """The nodes of `live_at` that a round may wait for.

        They are members, and strangers that arrived or took part within `timeout_s`.
        """
        live = self.live_at(tip)
        if live <= self._proven.keys():
            return live
        return frozenset(
            peer
            for peer in live
            if peer in self._proven or now - self._took_part.get(peer, now) <= timeout_s
        )

    @property
    def counted_members(self) -> int:
        """How many members count for the rate of our own beacons."""
        counted = sum(1 for peer in self._members if peer in self._proven or peer in self._links)
        return counted + min(len(self._members) - counted, STRANGERS_PER_MEMBER * (counted + 1))

    # ---------------------------------------------------------------------------------- queries

    def ahead_of(self, number: int) -> list[PeerId]:
        """Nodes whose tip has a higher number, the furthest first."""
        ahead = [p for p, m in self._members.items() if m.beacon.number > number and m.is_live_node]
        return sorted(ahead, key=lambda peer: -self._members[peer].beacon.number)

    def strangers(self, knows: Callable[[Digest], bool], number: int) -> list[PeerId]:
        """Nodes from certificate `number` on whose tip is unknown to us.

        They are ahead of us, or on a branch that we have not seen.
        """
        unknown = [nodes for tip, nodes in self._live if not knows(tip)]
        return [p for nodes in unknown for p in nodes if self._members[p].beacon.number >= number]

    def holders_of(self, tip: Digest) -> list[PeerId]:
        """Nodes whose beacons claim the anchor of `tip`, the nearest first."""
        far = float("inf")
        near = {
            peer: link.rtt_s if link.rtt_s is not None else far
            for peer, link in self._links.items()
        }
        return sorted(self.live_at(tip), key=lambda peer: (near.get(peer, far), peer))

    def is_connected(self, peer: PeerId) -> bool:
        """Whether a connection to the peer is up, so that no dial is needed."""
        return peer in self._links

    def endpoint_of(
        self, peer: PeerId, fingerprint: Digest, fingerprint_of: Callable[[Endpoint], Digest]
    ) -> Endpoint | None:
        """The bulk endpoint with this fingerprint, once the peer's beacon brought it."""
        member = self._members.get(peer)
        if (
            member is None
            or member.beacon.endpoint is None
            or fingerprint_of(member.beacon.endpoint) != fingerprint
        ):
            return None
        return member.beacon.endpoint

    def _report(self, peer: PeerId, beacon: Beacon) -> PeerReport:
        return peer_report(peer, beacon, self._links.get(peer), self.link_estimates.of(peer))
