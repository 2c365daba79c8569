"""Following a run: its beacons and certificates, by gossip and, where gossip missed something, by
asking.

A node and an observer follow in the same way. What is new is handed over synchronously: `on_steps`
for certificates that joined the lineage, `on_members` when anything about who is there may have
changed, `on_gone` when the connection to a peer broke.

A beacon costs a signature, and everything that follows from it. So one signer is heard
`BEACONS_PER_S` times a second, and a certificate counts for several. `ask_order.py` says whom to
ask for what gossip missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from daemon.swarm.ask_order import AskOrder
from daemon.swarm.chain_sync import read_chain
from daemon.swarm.lineage import OTHER_TASK, TIPS_KEPT, Lineage, LineageEntry
from daemon.swarm.members import Members, beacon_s, poke_gap_s, settling_s
from daemon.swarm.messenger import Refuse
from daemon.system.trio_types import TaskStatus
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, Signer
from protocol.messages.base import Signed
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import AnyMessage, decode_signed, encode_signed, open_as, sign
from protocol.messages.round import Announce
from protocol.ports.network import Network
from protocol.rate_limiter import RateLimiter, RateLimiters

# Between looks at whether somebody is ahead: a certificate that gossip lost costs this and a
# request.
SYNC_S = 1.0
# Ours have 600 bytes; eight long host names and a large certificate fit.
MAX_BEACON_BYTES = 4096
# Heard of one signer: an honest one has a change to tell twice a second at most.
BEACONS_PER_S, BEACONS_AT_ONCE = 4.0, 40.0
# Beacons, for a certificate: one a second is more than any round makes.
CERTIFICATE_COUNTS = 4.0
# Of one peer: somebody who makes up certificates without end does not keep us from the others.
REQUESTS_IN_A_ROW = 64
# Of all strangers: each costs milliseconds to verify.
STRANGERS_CERTIFICATES_PER_S, STRANGERS_CERTIFICATES_AT_ONCE = 2.0, 16.0
# After each certificate of a stranger's answer, where a round goes on beside it: three times what
# it costs.
STRANGERS_PAUSE_S = 0.01
# Peers at once: one that is silent costs the others nothing.
ASKED_IN_TURN = 3
# Certificates of one answer without a parent here, before the rest is not read: another branch is
# looked for further back.
USELESS = 32
# By a newcomer: what its other neighbours hold it hears from their beacons.
ASKED_AT_ONCE = 8
# Certificates asked for below the first one when its parent is not known here: a partition of a
# demo's length.
STEP_BACK = 16


class Follower:
    """One node's or observer's view of the run."""

    def __init__(
        self,
        *,
        network: Network,
        run: Digest,
        signer: Signer,
        lineage: Lineage,
        members: Members,
        refuse: Refuse,
        on_steps: Callable[[list[LineageEntry]], None],
        on_members: Callable[[], None],
        on_gone: Callable[[PeerId], None],
        beacon: Callable[[], Beacon],
        send: Callable[[PeerId, Signed], None],
    ) -> None:
        self.ages: dict[Digest, tuple[float, float]] = {}  # tip to (its age, when we heard so)
        self._network, self._run, self._signer = network, run, signer
        self._lineage, self._members, self._refuse = lineage, members, refuse
        self._on_steps, self._on_members, self._on_gone = on_steps, on_members, on_gone
        self._beacon, self._send = beacon, send
        self._order = AskOrder()
        # Whether there are rounds of ours that go on beside everything here.
        self._stands = False
        self._strangers = RateLimiter(
            per_s=STRANGERS_CERTIFICATES_PER_S, burst=STRANGERS_CERTIFICATES_AT_ONCE, now=0.0
        )
        self._heard = RateLimiters(per_s=BEACONS_PER_S, burst=BEACONS_AT_ONCE)
        self._poked = trio.Event()
        self._lagging = trio.Event()
        # Something changed since nobody had anything for us.
        self._news = trio.Event()
        # Something changed that `on_members` was not called for yet.
        self._stale = trio.Event()
        self._new_links: set[PeerId] = set()
        self._asked = 0
        self._beacons_topic = f"hypergpu/{run.hex()}/beacons"
        self._certificates_topic = f"hypergpu/{run.hex()}/certificates"
        # What is accepted has been dealt with: it had to verify before anything is passed on.
        # Nothing is left to be read.
        network.subscribe(self._beacons_topic, self._accept_beacon, keep=False)
        network.subscribe(self._certificates_topic, self._accept_certificate, keep=False)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
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

    def stand(self, tip: Tip) -> None:
        """This node stands on `tip`: its ancestry stays, and those who made it come before
        strangers.
        """
        self._lineage.stand(tip)
        self._stands = tip.number > 0
        self._members.prove(tip.members)
        self._network.keep(self._members.proven)

    def poke(self) -> None:
        """What our beacon says has changed: tell it soon."""
        self._poked.set()

    async def publish_certificate(self, raw: bytes) -> None:
        await self._network.publish(self._certificates_topic, raw)

    # -------------------------------------------------------------------------------------------- in

    def take(self, signed: Signed, message: AnyMessage) -> bool:
        """A verified message from a single peer. False when it is not a follower's to take."""
        if isinstance(message, Beacon):
            self.take_beacon(signed, message)
        elif isinstance(message, Announce):
            if self._too_many_certificates(signed.peer):
                return True
            try:
                self.take_certificate(message.certificate, signed.peer)
            except PeerFault as fault:
                self._refuse(fault.reason, signed.peer, str(fault))
        else:
            return False
        return True

    def take_beacon(self, signed: Signed, beacon: Beacon) -> None:
        """A verified beacon, however it came."""
        if self._members.take(signed.peer, beacon, trio.current_time()):
            if beacon.number > self._lineage.front.number:
                self._lagging.set()
            self._changed()

    def _changed(self) -> None:
        """Something about who is there: acted on at once among few, gathered for a while among
        many.
        """
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
        self._on_members()

    async def _settle(self) -> None:
        while True:
            await self._stale.wait()
            await trio.sleep(settling_s(len(self._members)))
            self._stale = trio.Event()
            self._look()

    def take_certificate(self, raw: bytes, source: PeerId = "") -> None:
        """A certificate from anywhere; without a `source` it is our own.

        Raises `PeerFault` when it does not verify.
        """
        steps = self._lineage.add(raw, source=source)
        self._news.set()
        for made in steps:
            self._note_age(made.tip.hash, 0.0)
        if steps:
            self._on_steps(steps)
        if self._lineage.waiting:
            self._lagging.set()

    def _too_often(self, peer: PeerId, counts: float) -> bool:
        now = trio.current_time()
        if self._heard.of(peer, now).spend(counts, now):
            return False
        self._refuse("busy", peer, f"more than {BEACONS_PER_S:g} beacons a second")
        return True

    def _too_many_certificates(self, peer: PeerId) -> bool:
        if self._members.rank(peer) and not self._strangers.spend(1.0, trio.current_time()):
            self._refuse(
                "busy",
                peer,
                f"more than {STRANGERS_CERTIFICATES_PER_S:g} certificates a second of strangers",
            )
            return True
        return self._too_often(peer, CERTIFICATE_COUNTS)

    def _accept_beacon(self, peer: PeerId, data: bytes) -> bool:
        if self._too_often(peer, 1.0):
            return False
        try:
            if len(data) > MAX_BEACON_BYTES:
                raise PeerFault("oversized", f"a beacon of {len(data)} bytes")
            signed = decode_signed(data)
            if signed.peer != peer:
                raise PeerFault("identity", "a beacon signed by another than its sender")
            self.take_beacon(signed, open_as(Beacon, signed, self._run))
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))
            return False
        return True

    def _accept_certificate(self, peer: PeerId, data: bytes) -> bool:
        if self._too_many_certificates(peer):
            return False
        try:
            self.take_certificate(data, peer)
        except PeerFault as fault:
            if fault.reason == OTHER_TASK:
                # Right, and not for us: those that have its task may hear it through us.
                return True
            self._refuse(fault.reason, peer, str(fault))
            return False
        return True

    # -------------------------------------------------------------------------------------------- out

    async def _tell(self) -> None:
        while True:
            self._poked = trio.Event()
            await self._network.publish(self._beacons_topic, encode_signed(self._signed_beacon()))
            with trio.move_on_after(beacon_s(self._members.pace)):
                await trio.sleep(poke_gap_s(self._members.pace))
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
                    # Gossip would bring it too, in seconds.
                    self._send(change.peer, self._signed_beacon())
                    if self._lineage.front.number == 0 and self._asked < ASKED_AT_ONCE:
                        self._asked += 1
                        # A newcomer that waited for beacons could meet another one first, and the
                        # two would begin the run a second time.
                        nursery.start_soon(self._greet, change.peer)
                else:
                    self._new_links.discard(change.peer)
                    self._members.link_down(change.peer, change.reason)
                    self._on_gone(change.peer)
                self._changed()

    async def _greet(self, peer: PeerId) -> None:
        if await self._members.tasks.greet(self._network, peer):
            await self.ask((peer,))

    def _signed_beacon(self) -> Signed:
        return sign(self._signer, self._run, self._beacon())

    # -------------------------------------------------------------------------------------------- what gossip missed

    async def _catch_up(self) -> None:
        # Where nobody had anything for us, so that there is nothing to look for.
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
            # Whoever stands on another branch need not be ahead: left to itself, a short branch
            # could never make the long one merge with it.
            strangers = self._members.strangers(
                lambda tip: self._lineage.tip(tip) is not None, best.number - TIPS_KEPT
            )
            sources = [*self._members.ahead_of(best.number), *strangers]
            seen = None if sources else now
            if sources or self._lineage.waiting:
                await self.ask(sources or self._members.holders_of(best.hash))
                await trio.sleep(SYNC_S / 2)

    def _note_age(self, tip: Digest, age_s: float) -> None:
        """How long ago a certificate was made: with it, a node that downloads its state ends the
        round with the others.
        """
        self.ages[tip] = (age_s, trio.current_time())
        if len(self.ages) > 2 * STEP_BACK:
            del self.ages[next(iter(self.ages))]

    async def ask(self, peers: Iterable[PeerId]) -> None:
        """Ask a few peers at once for the certificates after our front, until one gives something
        new.
        """
        ours = [peer for peer in peers if not self._members.has_other_task(peer)]
        chosen = self._order.order(ours, self._members.rank, trio.current_time())[:ASKED_IN_TURN]
        async with trio.open_nursery() as nursery:
            for peer in chosen:
                nursery.start_soon(self._ask_in_turn, peer, nursery.cancel_scope)

    async def _ask_in_turn(self, peer: PeerId, scope: trio.CancelScope) -> None:
        gave = False
        self._order.asked(peer, trio.current_time())
        try:
            gave = await self._ask_one(peer)
        except Unreachable:
            pass
        except PeerFault as fault:
            self._refuse(fault.reason, peer, str(fault))
        if gave:
            self._order.gave(peer)
            scope.cancel()
        else:
            self._order.gave_nothing(peer, self._members.rank(peer), trio.current_time())

    async def _ask_one(self, peer: PeerId) -> bool:
        """Whether it gave anything new."""
        first = self._lineage.front.number + 1
        back, gave = STEP_BACK, False
        for _ in range(REQUESTS_IN_A_ROW):
            answer = _Answer(last=first - 1)

            async def take(raw: bytes, answer: _Answer = answer) -> bool:
                waited = self._lineage.waiting
                # A peer that has our task stands on these, whatever version of the task they were
                # made with.
                steps = self._lineage.add(raw, of_any_task=True, source=peer, asked=True)
                self._news.set()
                if steps:
                    answer.reaches = True
                    answer.last = max(answer.last, *(made.tip.number for made in steps))
                    self._on_steps(steps)
                elif waited:
                    answer.useless += 1
                if self._members.rank(peer) and self._stands:
                    await trio.sleep(STRANGERS_PAUSE_S)
                else:
                    await trio.lowlevel.checkpoint()
                return answer.useless < USELESS

            reply = await read_chain(self._network, peer, self._run, first, take)
            gave = gave or answer.reaches
            self._note_age(reply.tip, reply.age_s)
            if answer.reaches and answer.last < reply.number:
                first = answer.last + 1
            elif not answer.reaches and self._lineage.tip(reply.tip) is None and first > 1:
                # Another branch: look for where it left ours.
                first, back = max(1, first - back), back * 2
            else:
                break
        return gave


class _Answer:
    """What one answer has brought so far."""

    def __init__(self, last: int) -> None:
        self.reaches, self.last, self.useless = False, last, 0
