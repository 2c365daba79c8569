"""A world: simulated nodes that run the real engine over fake ports, in virtual time.

The same seed gives the same history.

Only the outermost layer is fake: network, trainer, disk and clock. Round machine, engine, codecs,
ledger and outer step are the node's own modules. `tests/simulator/test_world.py` asserts this.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import trio
from msgspec.structs import replace

from protocol.averaging.vector_layout import chunk_count
from protocol.certificates.leader_order import voter_order
from protocol.contribution.offer import Offer
from protocol.journal import (
    JournalEvent,
    PeerReport,
    PhaseEntered,
    RoundCertified,
    WorkDropped,
    encode_event,
)
from protocol.run.founders import founded_by, with_founders
from protocol.run.manifest import Manifest, seal
from protocol.run.manifest_parts import Admission
from simulator.fakes.link import LinkMap
from simulator.fakes.swarm import DEGREE, LEAST_DEGREE, FakeSwarm
from simulator.faults.liar import Situation
from simulator.faults.lies import LIES
from simulator.world.invariants import Invariants
from simulator.world.signature_cache import checked_once
from simulator.world.simulated_node import NodeListener, SimulatedNode

# Above this many nodes, gossip reaches everybody at once. Passing it from node to node costs n^2
# times the degree.
FLOODED_NODES = 128
# The interval between two checks of an awaited condition, in virtual time.
LOOK_S = 0.05

Watcher = Callable[[float, SimulatedNode, JournalEvent], None]


class World(NodeListener):
    """All simulated nodes of one run, and the invariants that hold among them.

    No node runs at first; `start` begins the life of one. Use it inside `running()` and
    `simulator.fakes.clock.run_virtual`.
    """

    def __init__(
        self,
        *,
        seed: int,
        nodes: int,
        manifest: Manifest,
        link: LinkMap | None = None,
        parameters: int = 20_000,
        samples_per_second: Callable[[int], float] = lambda index: 100.0 + 10.0 * index,
        marked: bool = False,
        founders: int | None = None,
        owner: int | None = None,
        allowlist: bool = False,
    ) -> None:
        """Who votes at first in a run of rules 4 that names no founders.

        `owner` is the run's owner and its only founder. Without one, the first `founders` nodes
        are; None: all. With `allowlist` the run admits its nodes and nobody else.
        """
        self.rng = random.Random(seed)
        many = nodes > FLOODED_NODES
        self.swarm = FakeSwarm(
            self.rng, link, degree=LEAST_DEGREE if many else DEGREE, floods=not many
        )
        self.history: list[tuple[float, int, JournalEvent]] = []
        self.watchers: list[Watcher] = []
        self.nodes = [SimulatedNode(i, self.rng, samples_per_second(i)) for i in range(nodes)]
        signer = None if owner is None else self.nodes[owner].signer
        if signer is not None:
            manifest = founded_by(manifest, signer.peer)
        manifest = with_founders(manifest, (node.peer for node in self.nodes[:founders]))
        if allowlist:
            allowed = tuple(sorted(node.peer for node in self.nodes))
            manifest = replace(manifest, admission=Admission(policy="allowlist", allowed=allowed))
        self.manifest = seal(manifest, signer)
        self.invariants = Invariants(manifest)
        # Samples that were trained and never handed over, because the node died.
        self.lost_samples = 0
        # Samples that nodes which died had trained since the last certificate, handed over or not.
        self.unfinished_samples = 0
        # Samples that trainers handed over in earlier lives.
        self.collected_before = 0
        self._parameters = parameters
        self._marked = marked
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with checked_once():
            async with self.swarm.running(), trio.open_nursery() as nursery:
                self._nursery = nursery
                yield
                nursery.cancel_scope.cancel()

    # ---------------------------------------------------------------- lives

    def start(self, *indices: int) -> None:
        """Begin a life for each of these nodes, or for all, unless it is alive."""
        assert self._nursery is not None
        for index in indices or range(len(self.nodes)):
            node = self.nodes[index]
            if not node.alive:
                node.alive = True
                self._count_life(node)
                self._nursery.start_soon(self._live, node)

    async def _live(self, node: SimulatedNode) -> None:
        if self.manifest.open().rules in node.supported_rules:
            await node.live(self.swarm, self.manifest, self._parameters, self, marked=self._marked)
        else:
            await node.ask(
                self.swarm,
                next(other.peer for other in self.nodes if other.alive and other is not node),
            )

    def _count_life(self, node: SimulatedNode) -> None:
        if node.trainer is not None:
            self.collected_before += node.trainer.collected

    def kill(self, index: int) -> None:
        """Kill a node as `kill -9` does: its connections are reset and nothing more is written."""
        node = self.nodes[index]
        if node.alive and node.network is not None:
            if node.trainer is not None:
                self.lost_samples += node.trainer.progress().samples
            if node.engine is not None and node.engine.state_store is not None:
                self.unfinished_samples += node.engine.state_store.ledger.pending
            node.paused = False
            self.swarm.kill(node.peer)
            node.end()

    def finish(self, index: int) -> None:
        """Ask a node to leave in order."""
        engine = self.nodes[index].engine
        if self.nodes[index].alive and engine is not None:
            engine.finish()

    def partition(self, *groups: Iterable[int]) -> None:
        self.swarm.partition(*([self.nodes[i].peer for i in group] for group in groups))

    def heal(self) -> None:
        self.swarm.heal()

    def lie(self, index: int, kind: str | None) -> None:
        """Make a node tell this lie from now on. None makes it honest again."""
        node = self.nodes[index]
        liar = (
            LIES[kind](node.signer, self.manifest.run, self.manifest.open(), node.injector.rng)
            if kind
            else None
        )
        node.injector.liar = liar
        if liar is None or kind is None:
            return
        self.invariants.liars[index] = kind
        liar.situation = Situation(
            tip=lambda: state.tip if (state := node.state) is not None else None,
            lineage=lambda: node.engine.peers.lineage if node.engine is not None else None,
            accomplices=lambda: tuple(
                self.nodes[other].signer
                for other, lie in sorted(self.invariants.liars.items())
                if lie == kind
            ),
            offers=lambda: self.invariants.contents.last_offers(node.peer, self._parameters),
            chunks=chunk_count(self._parameters),
        )
        if node.engine is not None and (opinions := liar.opinions()) is not None:
            node.engine.speak(lambda: liar.opinions() or opinions)

    # ---------------------------------------------------------------- what happened

    def happened(self, node: SimulatedNode, event: JournalEvent) -> None:
        if isinstance(event, PeerReport):
            # Nine of ten events are peer reports. What they lead to is in the other events.
            return
        now = trio.current_time()
        self.history.append((now, node.index, event))
        if isinstance(event, WorkDropped):
            self.invariants.dropped(node, event.samples)
        elif isinstance(event, RoundCertified):
            if event.state_digest:
                self.invariants.moved(node, now)
        elif isinstance(event, PhaseEntered):
            self.invariants.entered(node, now)
        for watcher in self.watchers:
            watcher(now, node, event)

    def offered(self, node: SimulatedNode, offer: Offer) -> None:
        self.invariants.offered(node, offer)

    def crashed(self, node: SimulatedNode, error: BaseException) -> None:
        self.invariants.crashed(node, trio.current_time(), error)

    def log(self) -> bytes:
        """Everything that happened but peer reports, one line each.

        Equal stories give equal bytes.
        """
        return b"".join(
            b"%.6f %d %s\n" % (at, index, encode_event(event)) for at, index, event in self.history
        )

    def events(
        self, kind: type[JournalEvent], *, node: int | None = None, after: float = 0.0
    ) -> list[JournalEvent]:
        """The events of one kind, of one node or of all, from an instant on."""
        return [
            event
            for at, index, event in self.history
            if isinstance(event, kind) and at >= after and node in (None, index)
        ]

    def number(self, index: int) -> int:
        """The number of the certificate whose anchor a node holds."""
        engine = self.nodes[index].engine
        return engine.state_store.tip.number if engine and engine.state_store else 0

    def tips(self) -> set[bytes]:
        """The tips of the live nodes."""
        return {
            node.engine.state_store.tip.hash
            for node in self.nodes
            if node.alive and node.engine and node.engine.state_store
        }

    def awake(self) -> list[SimulatedNode]:
        """The live nodes that are not paused."""
        return [node for node in self.nodes if node.alive and not node.paused]

    def in_turn(self) -> list[int]:
        """The founders in the order in which they lead."""
        places = {node.peer: node.index for node in self.nodes}
        founders = self.manifest.open().founders
        return [places[peer] for peer in voter_order(self.manifest.run, founders, 0)]

    async def until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait in virtual time for a condition.

        Raises:
            TimeoutError: When the condition is not met in time. The message names it.
        """
        with trio.move_on_after(within_s):
            while not condition():
                await trio.sleep(LOOK_S)
            return
        raise TimeoutError(f"not within {within_s:g} s of virtual time: {what}")
