"""Who else is in the run: the latest signed beacon of every peer, and whether it is alive.

A peer is alive while its beacons come and no connection to it was seen to break since the last one.
Alive and at our tip is what a leader waits for; everything else here is for people to look at.

Everybody hears everybody's beacons, so their pace goes down as members become more: what one node
hears stays below `BEACONS_PER_S`, as SWIM and memberlist keep a member's load constant
(https://www.cs.cornell.edu/projects/Quicksilver/public_pdfs/SWIM.pdf). Up to 125 members nothing
changes. What it costs is how soon a silent peer is forgotten: 20 s then, 160 s with a thousand. A
crash is not noticed that way but by those connected to the dead, at once; whoever is not connected
to it and leads waits `ready_s` for it in vain, and plans without it.

A key costs nothing, so a beacon of a key that no certificate of ours names (a stranger's) is worth
little. Strangers slow our own beacons down to a fifth at most (`pace`), and no round waits for a
stranger that was alive for a while and took no part (`awaited_at`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from daemon.swarm.link_estimates import LinkEstimates
from daemon.swarm.task_agreement import TaskAgreement
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import JournalEvent, PeerDown, PeerForgotten, PeerReport, PeerUp
from protocol.messages.beacon import Beacon
from protocol.ports.endpoint import Endpoint
from protocol.ports.network import Link
from protocol.round.phase import Phase
from protocol.run.manifest import RoundRules

# Between beacons of few: the page's idea of now.
BEACON_S = 5.0
# Heard by one node of many, when nothing happens: 20 KB/s with every copy that gossip brings.
BEACONS_PER_S = 25.0
# Beacons instead of one in the same time, when there is something to tell.
CHANGES_TOLD = 2
# At least so long between two beacons of few, however much changes.
POKE_GAP_S = 0.5
# So many beacons may be missed before a peer is forgotten.
BEACONS_LOST = 4
# Up to here every change is acted on at once...
FEW_MEMBERS = 64
# ...and with a thousand and more so often: a set of a thousand is made anew each time.
LOOKS_PER_S = 1.0
# Remembered at once, 1 KB each; the one heard longest ago makes room.
MAX_MEMBERS = 1 << 14
# That count for the pace of our beacons, for each member and each peer that is connected.
STRANGERS_PER_MEMBER = 4
STRANGER_ROUNDS = 3.0  # for which a stranger is waited for
# Members by our certificates, the ones certified last.
PROVEN_KEPT = 1024
# Phases in which a node has made no offer of the round yet.
TRAINING = (Phase.TRAIN.value, Phase.OFFER.value)
# Sets of the living kept as they were last asked for: a round asks for one or two.
TIPS_FROZEN = 8


def beacon_s(members: int) -> float:
    """Seconds between two beacons of a node that knows so many others, when it has nothing new to
    tell.
    """
    return max(BEACON_S, members / BEACONS_PER_S)


def poke_gap_s(members: int) -> float:
    """The least time between two beacons, however much changes."""
    return max(POKE_GAP_S, members / (BEACONS_PER_S * CHANGES_TOLD))


def silence_s(members: int) -> float:
    """Without a beacon for so long a peer is forgotten."""
    return BEACONS_LOST * beacon_s(members)


def stranger_patience_s(times: RoundRules) -> float:
    """For how long a round waits for a stranger that takes no part: long enough to train once and
    to offer twice.
    """
    return STRANGER_ROUNDS * (times.seconds + times.ready_s)


def settling_s(members: int) -> float:
    """For how long changes are gathered before they are acted on."""
    return 0.0 if members <= FEW_MEMBERS else min(1.0 / LOOKS_PER_S, members / 1000)


class MemberRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A peer as last heard of, on our monotonic clock."""

    beacon: Beacon
    heard_s: float
    # A connection broke and no newer beacon came since.
    lost: bool = False
    # It has another task than we, or one that was not compared yet: nothing is planned with it.
    apart: bool = False

    @property
    def is_live_node(self) -> bool:
        return not self.lost and not self.apart and self.beacon.role == "node"


def _moved(before: Beacon, after: Beacon) -> bool:
    """Whether its sender got on with a round."""
    return (before.phase, before.view, before.number) != (after.phase, after.view, after.number)


class Members:
    """The table of members. Pure but for the events it records."""

    def __init__(
        self, me: PeerId, record: Callable[[JournalEvent], None], admit: Callable[[Endpoint], None]
    ) -> None:
        self._me = me
        self._record = record
        self._admit = admit
        self._members: dict[PeerId, MemberRecord] = {}  # the one heard longest ago first
        self._links: dict[PeerId, Link] = {}
        self._live: dict[Digest, dict[PeerId, None]] = {}  # the living nodes by tip
        self._frozen: dict[Digest, frozenset[PeerId]] = {}  # the same as it was last asked for
        self._proven: dict[PeerId, None] = {}  # the one certified longest ago first
        # When a stranger in the table came, or last did what only a member does.
        self._took_part: dict[PeerId, float] = {}
        self.neighbours = LinkEstimates(me)
        self.tasks = TaskAgreement(record)
        # Grows when anything changes about who is there, or where.
        self.version = 0

    def __len__(self) -> int:
        return len(self._members)

    def take(self, peer: PeerId, beacon: Beacon, now: float) -> bool:
        """A verified beacon.

        True when it changes who is there, or where: most say the same as before, and with a
        thousand members what follows from each would take all of a node's time.
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
        if known is None or (peer in self._links and _moved(known.beacon, beacon)):
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
        return changed

    def _put(self, peer: PeerId, member: MemberRecord) -> bool:
        """Whether it says something else than what was known of who is there, or where."""
        known = self._members.get(peer)
        if known is not None and known.heard_s != member.heard_s:
            del self._members[peer]  # to the end: it is the one heard last now
        self._members[peer] = member
        if (
            known is not None
            and known.lost == member.lost
            and known.apart == member.apart
            and known.beacon.tip == member.beacon.tip
            and known.beacon.role == member.beacon.role
        ):
            return False  # as nearly every beacon says
        before = known.beacon.tip if known is not None and known.is_live_node else None
        after = member.beacon.tip if member.is_live_node else None
        if before != after or known is None:
            self.version += 1
            self._leaves(peer, before)
            if after is not None:
                self._live.setdefault(after, {})[peer] = None
                self._frozen.pop(after, None)
        return True

    def _remove(self, peer: PeerId) -> MemberRecord:
        known = self._members.pop(peer)
        self._took_part.pop(peer, None)
        self.version += 1
        self._leaves(peer, known.beacon.tip if known.is_live_node else None)
        return known

    def _leaves(self, peer: PeerId, tip: Digest | None) -> None:
        if tip is not None:
            there = self._live[tip]
            del there[peer]
            self._frozen.pop(tip, None)
            if not there:
                del self._live[tip]

    def has_other_task(self, peer: PeerId) -> bool:
        """Whether a peer is known to train something else."""
        known = self._members.get(peer)
        return known is not None and known.apart

    def compare_again(self, name: bytes | None = None) -> None:
        """What is known of the task with that name, or of every task, has changed."""
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
        """The connection broke: until its next beacon the peer is not taken to be alive."""
        self._links.pop(peer, None)
        known = self._members.get(peer)
        if known is not None:
            self._put(peer, msgspec.structs.replace(known, lost=True))
        self._record(PeerDown(peer=peer, reason=reason))

    def measured(self, links: tuple[Link, ...]) -> None:
        """Fresh round-trip times."""
        self._links = {link.peer: link for link in links}
        self.neighbours.linked(links)
        for peer, link in self._links.items():
            member = self._members.get(peer)
            if member is not None and link.rtt_s is not None:
                self._record(self._report(peer, member.beacon))

    def expire(self, now: float) -> None:
        """Forget who has been silent for too long."""
        patience_s = silence_s(len(self._members))
        while self._members:
            peer, member = next(iter(self._members.items()))
            if now - member.heard_s <= patience_s:
                return
            self._remove(peer)
            self._record(PeerForgotten(peer=peer, silent_s=now - member.heard_s))

    def live_at(self, tip: Digest) -> frozenset[PeerId]:
        """Other nodes that are alive and hold the anchor of `tip`."""
        frozen = self._frozen.get(tip)
        if frozen is None:
            frozen = self._frozen[tip] = (
                frozenset(self._live[tip]) if tip in self._live else frozenset()
            )
            if len(self._frozen) > TIPS_FROZEN:
                del self._frozen[next(iter(self._frozen))]
        return frozen

    def training_at(self, tip: Digest) -> frozenset[PeerId]:
        """Of those, the nodes whose last beacon says that they still train for the round after
        `tip`: a round waits for them.

        Members by our certificates alone, once there are any. Keys are free, and a few of a
        stranger's could hold up each round.
        """
        training = frozenset(
            peer for peer in self.live_at(tip) if self._members[peer].beacon.phase in TRAINING
        )
        return training & self._proven.keys() if self._proven else training

    # -------------------------------------------------------------------------------------------- who counts

    def prove(self, peers: Iterable[PeerId]) -> None:
        """Our lineage names these as members."""
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
        """It offered to a round."""
        if peer in self._took_part:
            self._took_part[peer] = now

    def rank(self, peer: PeerId) -> int:
        """0 for members by our certificates, 1 for peers that are connected, 2 for others."""
        return 0 if peer in self._proven else 1 if peer in self._links else 2

    def awaited_at(self, tip: Digest, now: float, patience_s: float) -> frozenset[PeerId]:
        """Those of `live_at(tip)` that a round may wait for: members, and strangers that came or
        took part within `patience_s`.
        """
        live = self.live_at(tip)
        if live <= self._proven.keys():
            return live
        return frozenset(
            peer
            for peer in live
            if peer in self._proven or now - self._took_part.get(peer, now) <= patience_s
        )

    @property
    def pace(self) -> int:
        """Of how many members our own beacons take account."""
        counted = sum(1 for peer in self._members if peer in self._proven or peer in self._links)
        return counted + min(len(self._members) - counted, STRANGERS_PER_MEMBER * (counted + 1))

    # -------------------------------------------------------------------------------------------- who holds what

    def ahead_of(self, number: int) -> list[PeerId]:
        """Nodes whose tip has a higher number, the furthest first."""
        ahead = [p for p, m in self._members.items() if m.beacon.number > number and m.is_live_node]
        return sorted(ahead, key=lambda peer: -self._members[peer].beacon.number)

    def strangers(self, knows: Callable[[Digest], bool], number: int) -> list[PeerId]:
        """Nodes from certificate `number` on whose tip we do not know: they are ahead, or stand on
        a branch that we have not seen.
        """
        unknown = [there for tip, there in self._live.items() if not knows(tip)]
        return [p for there in unknown for p in there if self._members[p].beacon.number >= number]

    def holders_of(self, tip: Digest) -> list[PeerId]:
        """Nodes that say they hold the anchor of `tip`, the nearest first."""
        far = float("inf")
        near = {
            peer: link.rtt_s if link.rtt_s is not None else far
            for peer, link in self._links.items()
        }
        return sorted(self.live_at(tip), key=lambda peer: (near.get(peer, far), peer))

    def is_connected(self, peer: PeerId) -> bool:
        """Whether there is a connection to a peer: what it holds can be had without dialling."""
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
        link = self._links.get(peer)
        near = self.neighbours.of(peer)
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
            jitter_s=link.jitter_s if link else None,
            loss_share=near.loss,
            bits_per_second=near.bits_per_second,
            quality=near.quality.name if link else "",
            quality_reason=near.quality.reason if link else "",
            standing=near.standing.name,
            standing_reason=near.standing.reason,
        )
