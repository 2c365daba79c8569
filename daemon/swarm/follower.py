"""Follows a run: its beacons and certificates, by gossip and by asking for what gossip missed.

A node and an observer follow in the same way. News is handed over synchronously through
`FollowerHooks`.

`news_limits.py` bounds how much news a node looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import trio

from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.beacon_schedule import beacon_s, poke_gap_s, settling_s
from daemon.swarm.certificate_fetcher import CertificateFetcher
from daemon.swarm.certificate_shares import TIPS_KEPT
from daemon.swarm.lineage import OTHER_TASK, Lineage
from daemon.swarm.members import Members
from daemon.swarm.messenger import Refuse
from daemon.swarm.news_limits import NewsLimits
from daemon.system.trio_types import TaskStatus
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer
from protocol.messages.base import Signed
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import AnyMessage, decode_signed, encode_signed, open_as, sign
from protocol.messages.round import Announce
from protocol.ports.network import Network

# Between checks whether another node is ahead. A certificate that gossip lost costs this time and a
# request.
SYNC_S = 1.0
# Our beacons have 600 bytes. Eight long host names and a large certificate fit.
MAX_BEACON_BYTES = 4096
# New connections that a newcomer asks at once. What its other neighbours hold it hears from their
# beacons.
ASKED_AT_ONCE = 8


class FollowerHooks(msgspec.Struct, frozen=True, kw_only=True):
    """What a follower calls when something happens, and what it asks its node for."""

    # Called with entries that joined the lineage.
    on_entries: Callable[[list[LineageEntry]], None]
    # Called when a peer may have arrived, left or moved.
    on_members: Callable[[], None]
    # Called when the connection to a peer broke.
    on_gone: Callable[[PeerId], None]
    # Gives the node's beacon.
    beacon: Callable[[], Beacon]
    # Sends a message to a single peer.
    send: Callable[[PeerId, Signed], None]


class Follower:
    """Keeps the lineage and the members of one node or observer up to date."""

    def __init__(
        self,
        *,
        network: Network,
        run: Digest,
        signer: Signer,
        lineage: Lineage,
        members: Members,
        refuse: Refuse,
        hooks: FollowerHooks,
    ) -> None:
        self._network, self._run, self._signer = network, run, signer
        self._lineage, self._members, self._refuse = lineage, members, refuse
        self._hooks = hooks
        # Set when something changed since no peer had anything new.
        self._news = trio.Event()
        self._fetcher = CertificateFetcher(
            network, run, lineage, members, refuse, hooks.on_entries, self._note_news
        )
        self._limits = NewsLimits(members, refuse)
        self._poked = trio.Event()
        self._lagging = trio.Event()
        # Set when something changed and `on_members` was not called yet.
        self._stale = trio.Event()
        self._new_links: set[PeerId] = set()
        self._asked = 0
        self._beacons_topic = f"hypergpu/{run.hex()}/beacons"
        self._certificates_topic = f"hypergpu/{run.hex()}/certificates"
        # A message is handled while it is accepted, since it must verify before it is passed on.
        # So nothing is kept to be read.
        network.subscribe(self._beacons_topic, self._accept_beacon, keep=False)
        network.subscribe(self._certificates_topic, self._accept_certificate, keep=False)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the run, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell)
            nursery.start_soon(self._catch_up)
            nursery.start_soon(self._measure)
            nursery.start_soon(self._settle)
            nursery.start_soon(self._watch_links)
            nursery.start_soon(
                self._members.tasks.compare, self._network, self._refuse, self._compared
            )
            task_status.started()

    @property
    def ages(self) -> dict[Digest, tuple[float, float]]:
        """By tip: its age, and when this node heard of the age."""
        return self._fetcher.ages

    def adopt(self, tip: Tip) -> None:
        """Follow `tip`: its ancestry is kept, and its members come before strangers."""
        self._lineage.adopt(tip)
        self._fetcher.verifies_beside_rounds = tip.number > 0
        self._members.prove(tip.members)
        self._network.keep(self._members.proven)

    def _note_news(self) -> None:
        self._news.set()

    def poke(self) -> None:
        """Send a beacon soon, because its content changed."""
        self._poked.set()

    async def publish_certificate(self, raw: bytes) -> None:
        await self._network.publish(self._certificates_topic, raw)

    # ---------------------------------------------------------------------------------- incoming

    def receive(self, signed: Signed, message: AnyMessage) -> bool:
        """Handle a verified message from a single peer. False when it is of another kind."""
        if isinstance(message, Beacon):
            self.receive_beacon(signed, message)
        elif isinstance(message, Announce):
            if not self._limits.admits_certificate(signed.peer):
                return True
            try:
                self.receive_certificate(message.certificate, signed.peer)
            except PeerFault as fault:
                self._refuse(fault.reason, signed.peer, str(fault))
        else:
            return False
        return True

    def receive_beacon(self, signed: Signed, beacon: Beacon) -> None:
        """Handle a verified beacon from anywhere."""
        if self._members.receive(signed.peer, beacon, trio.current_time()):
            if beacon.number > self._lineage.front.number:
                self._lagging.set()
            self._changed()

    def _changed(self) -> None:
        """Act on a change of the members: at once among few, gathered for a while among many."""
        self._news.set()
        if settling_s(len(self._members)):
            self._stale.set()
        else:
            self._look()

    def _compared(self, name: bytes) -> None:
        self._members.compare_again(name)
        self._changed()

    def _look(self) -> None:
        if self._new_links:
            new, self._new_links = self._new_links, set()
            self._members.links_up(link for link in self._network.links() if link.peer in new)
        self._hooks.on_members()

    async def _settle(self) -> None:
        while True:
            await self._stale.wait()
            await trio.sleep(settling_s(len(self._members)))
            self._stale = trio.Event()
            self._look()

    def receive_certificate(self, raw: bytes, source: PeerId = "") -> None:
        """Add a certificate from anywhere; without a `source` it is our own.

        Raises:
            PeerFault: When it does not verify.
        """
        entries = self._lineage.add(raw, source=source)
        self._news.set()
        for made in entries:
            self._fetcher.note_age(made.tip.hash, 0.0)
        if entries:
            self._hooks.on_entries(entries)
        if self._lineage.waiting:
            self._lagging.set()

    def _accept_beacon(self, peer: PeerId, data: bytes) -> bool:
        if not self._limits.admits_beacon(peer):
            return False
        try:
            if len(data) > MAX_BEACON_BYTES:
                raise PeerFault("oversized", f"a beacon of {len(data)} bytes")
            signed = decode_signed(data)
            if signed.peer != peer:
                raise PeerFault("identity", "a beacon that its sender did not sign")
            self.receive_beacon(signed, open_as(Beacon, signed, self._run))
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))
            return False
        return True

    def _accept_certificate(self, peer: PeerId, data: bytes) -> bool:
        if not self._limits.admits_certificate(peer):
            return False
        try:
            self.receive_certificate(data, peer)
        except PeerFault as fault:
            if fault.reason == OTHER_TASK:
                # The certificate is valid but of another task. Peers with that task may hear it
                # through us.
                return True
            self._refuse(fault.reason, peer, str(fault))
            return False
        return True

    # ---------------------------------------------------------------------------------- outgoing

    async def _tell(self) -> None:
        while True:
            self._poked = trio.Event()
            await self._network.publish(self._beacons_topic, encode_signed(self._signed_beacon()))
            with trio.move_on_after(beacon_s(self._members.counted_members)):
                await trio.sleep(poke_gap_s(self._members.counted_members))
                await self._poked.wait()
            self._members.expire(trio.current_time())
            self._changed()

    async def _measure(self) -> None:
        while True:
            await trio.sleep(beacon_s(len(self._members)))
            self._members.measured(tuple(self._network.links()))

    async def _watch_links(self) -> None:
        async with trio.open_nursery() as nursery:
            async for change in self._network.changes():
                if change.up:
                    self._new_links.add(change.peer)
                    # Gossip would bring the beacon too, but only after seconds.
                    self._hooks.send(change.peer, self._signed_beacon())
                    if self._lineage.front.number == 0 and self._asked < ASKED_AT_ONCE:
                        self._asked += 1
                        # A newcomer that waited for beacons could meet another newcomer first, and
                        # the two would begin the run a second time.
                        nursery.start_soon(self._greet, change.peer)
                else:
                    self._new_links.discard(change.peer)
                    self._members.link_down(change.peer, change.reason)
                    self._hooks.on_gone(change.peer)
                self._changed()

    async def _greet(self, peer: PeerId) -> None:
        if await self._members.tasks.greet(self._network, peer):
            await self.ask((peer,))

    def _signed_beacon(self) -> Signed:
        return sign(self._signer, self._run, self._hooks.beacon())

    # ---------------------------------------------------------------------------------- catching up

    async def _catch_up(self) -> None:
        # The state in which no peer had anything new, so that there is nothing to look for.
        seen: tuple[int, Digest] | None = None
        while True:
            with trio.move_on_after(SYNC_S):
                await self._lagging.wait()
            self._lagging = trio.Event()
            best = self._lineage.front
            now = (self._members.version, best.hash)
            if now == seen and not self._lineage.waiting:
                self._news = trio.Event()
                await self._news.wait()
                continue
            # A node on another branch need not be ahead. Else a short branch could never make a
            # long one merge with it.
            strangers = self._members.strangers(
                lambda tip: self._lineage.tip(tip) is not None, best.number - TIPS_KEPT
            )
            sources = [*self._members.ahead_of(best.number), *strangers]
            seen = None if sources else now
            if sources or self._lineage.waiting:
                await self.ask(sources or self._members.holders_of(best.hash))
                await trio.sleep(SYNC_S / 2)

    async def ask(self, peers: Iterable[PeerId]) -> None:
        """Ask a few peers at once for the certificates after our front."""
        await self._fetcher.ask(peers)
