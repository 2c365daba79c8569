"""Membership of ten thousand members: all know each other and draw the same leaders.

The leader's plan can also be made and checked.

A world of so many whole nodes is out of reach: each beacon reaches everybody, and 10,000 squared is
10^8. Here all members send beacons, with real keys and signatures, at the pace that
`daemon.swarm.members` sets for a swarm of this size. `LISTENERS` of them listen with the node's own
table, and each loses other beacons. Time is a number; nothing else is fake.
"""

from __future__ import annotations

import random
import resource
import time

from daemon.swarm.beacon_schedule import beacon_s
from daemon.swarm.members import Members
from protocol.certificates.leader_order import leader_of
from protocol.certificates.tip import genesis
from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer
from protocol.journal import JournalEvent, PeerForgotten
from protocol.messages.base import Signed
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import open_as, sign
from protocol.messages.offer import Ready
from protocol.planning.plan import make_plan, open_plan
from protocol.ports.endpoint import Endpoint
from protocol.round.machine import begin
from protocol.round.state import RoundState, RunContext
from protocol.run.manifest import Manifest, seal
from simulator.playback.report import StoryReport
from simulator.scenarios.story import Story

NAME = "membership"
NODES = 10_000
LISTENERS = 16
# Beacons of each member. A listener that loses one of fifty has heard from everybody by then,
# except for one chance in six million.
WAVES = 4
# The share of all beacons that each listener loses.
LOST = 0.02
CHUNKS = 64


def play_membership(nodes: int | None, seed: int) -> tuple[Story, StoryReport]:
    """Play the story and report. The story has the name and the size."""
    began, cpu = time.perf_counter(), time.process_time()
    story = Story(
        name=NAME,
        nodes=nodes or NODES,
        seed=seed,
        seconds=WAVES * beacon_s(nodes or NODES),
        max_group=64,
    )
    crowd = _Crowd(story)
    held = {"membership": crowd.meet(), "same leaders": crowd.draw(), "plan": crowd.plan()}
    return story, StoryReport(
        scenario=NAME,
        seed=seed,
        nodes=story.nodes,
        rounds_certified=0,
        goodput=None,
        detection_seconds=None,
        recovery_seconds=None,
        invariants={name: not wrong for name, wrong in held.items()},
        ok=not any(held.values()),
        reason="; ".join(wrong for wrong in held.values() if wrong),
        virtual_seconds=story.seconds,
        real_seconds=time.perf_counter() - began,
        cpu_seconds=time.process_time() - cpu,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


class _Crowd:
    def __init__(self, story: Story) -> None:
        self._rng = random.Random(f"{story.seed} {NAME}")
        self._manifest: Manifest = story.manifest()
        self._run: Digest = seal(self._manifest).run
        self._seconds = story.seconds
        self._signers = [Signer(self._rng.randbytes(32)) for _ in range(story.nodes)]
        self._peers: set[PeerId] = {signer.peer for signer in self._signers}
        self._events: list[JournalEvent] = []
        self._tables = {
            signer.peer: Members(signer.peer, self._record, lambda _endpoint: None)
            for signer in self._rng.sample(self._signers, min(LISTENERS, story.nodes))
        }

    def _record(self, event: JournalEvent) -> None:
        if isinstance(event, PeerForgotten):
            self._events.append(event)

    def _beacon(self, signer: Signer, serial: int) -> Signed:
        endpoint = Endpoint(
            peer=signer.peer,
            hosts=("10.0.0.1",),
            port=4002,
            certificate=digest(signer.public_key) * 10,
        )
        beacon = Beacon(
            serial=serial,
            name=signer.peer[-8:],
            role="node",
            number=0,
            tip=self._run,
            view=0,
            phase="train",
            samples=0,
            loss=None,
            samples_per_second=0.0,
            device="cpu",
            endpoint=endpoint,
        )
        return sign(signer, self._run, beacon)

    def meet(self) -> str:
        """All members send beacons in turn, in another order each time.

        Returns which listener does not know whom; empty when everybody knows everybody.
        """
        now = 0.0
        for wave in range(1, WAVES + 1):
            for signer in self._rng.sample(self._signers, len(self._signers)):
                now += self._seconds / WAVES / len(self._signers)
                signed = self._beacon(signer, wave)
                beacon = open_as(Beacon, signed, self._run)
                for table in self._tables.values():
                    if self._rng.random() >= LOST:
                        table.receive(signer.peer, beacon, now)
            for table in self._tables.values():
                table.expire(now)
        if self._events:
            return (
                f"{len(self._events)} members were forgotten although they sent a beacon every "
                f"{beacon_s(len(self._peers)):g} s"
            )
        for peer, table in self._tables.items():
            known = table.live_at(self._run)
            if known != self._peers - {peer}:
                return f"a listener knows {len(known)} of {len(self._peers) - 1} others"
        return ""

    def _state(self, peer: PeerId) -> RoundState:
        context = RunContext(run=self._run, me=peer, manifest=self._manifest, chunks=CHUNKS)
        root = genesis(self._run, overlap=self._manifest.round.overlaps)
        return begin(context, root, 0.0, live=self._tables[peer].live_at(self._run))

    def draw(self) -> str:
        """Check that the round machines of all listeners wait for the same leaders."""
        orders = {self._state(peer).leader_order for peer in self._tables}
        if len(orders) != 1 or set(next(iter(orders))) != self._peers:
            return f"{len(self._tables)} listeners drew {len(orders)} orders of leaders"
        return ""

    def plan(self) -> str:
        """The leader of view 0 makes a plan from all offers, and a receiver makes it again."""
        leader = leader_of(self._state(next(iter(self._tables))).leader_order, 0)
        signed = [sign(signer, self._run, self._ready(signer)) for signer in self._signers]
        offers = [(one, open_as(Ready, one, self._run)) for one in signed]
        made = make_plan(self._run, 0, 1, offers, self._manifest, CHUNKS, leader=leader)
        again = make_plan(
            self._run,
            0,
            1,
            self._rng.sample(offers, len(offers)),
            self._manifest,
            CHUNKS,
            leader=leader,
        )
        if made != again:
            return "the plan depends on the order of the offers"
        own = next(signer for signer in self._signers if signer.peer == leader)
        try:
            opened = open_plan(sign(own, self._run, made), self._run, self._manifest, CHUNKS)
        except PeerFault as fault:
            return f"a receiver rejects the plan: {fault}"
        if (
            len(opened.members) != min(self._manifest.group.max_group, len(self._signers))
            or leader not in opened.members
        ):
            return f"a plan of {len(opened.members)} members"
        return ""

    def _ready(self, signer: Signer) -> Ready:
        return Ready(
            parent=self._run,
            view=0,
            number=1,
            seq=1,
            samples=100,
            contribution=digest(b"contribution", signer.public_key),
            loss=None,
            fingerprint=digest(signer.public_key),
            uplink_bps=0,
            downlink_bps=0,
        )
