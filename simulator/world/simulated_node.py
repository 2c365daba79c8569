"""A node of a simulated world: its key, its disk, its pace and its lives.

Each life runs the real engine on fake ports.
"""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import trio

from daemon.services.training.native.engine import NativeEngine
from daemon.services.training.native.engine_context import NodePorts, engine_context
from daemon.swarm.manifest_exchange import fetch_run
from protocol.averaging.vector_layout import Vector
from protocol.contribution.offer import Offer
from protocol.errors import UserError
from protocol.identity import PeerId, Signer
from protocol.journal import JournalEvent
from protocol.membership.invitation import OwnInvitation
from protocol.membership.owner_record import OwnerRecords
from protocol.ports.offload import inline
from protocol.ports.trainer import (
    Evaluation,
    GroupLosses,
    HeldOutShare,
    Lane,
    Positions,
    Progress,
    TaskInfo,
    Work,
)
from protocol.round.events import Event, OfferMade
from protocol.round.phase import Phase
from protocol.round.state import RoundState
from protocol.rules.versions import KNOWN_RULES
from protocol.run.manifest import SignedManifest
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.medium import MemoryMedium
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm
from simulator.fakes.trainer import QuadraticTrainer
from simulator.faults.injector import FaultInjector, FaultyNetwork

NANOSECONDS = 1_000_000_000
# `daemon/node/discovery.py` waits this long for the first answer.
ASK_S = 30.0


class CountingTrainer:
    """A trainer that counts the samples it handed over, so that a world can account for them."""

    def __init__(self, inner: QuadraticTrainer, injector: FaultInjector) -> None:
        self.inner = inner
        self._injector = injector
        self.collected = 0
        # Whether the next stretch ends in values that are not finite.
        self.diverges = False
        # By what every stretch is multiplied: a poisoner's trainer hands over other work.
        self.poison = 1.0

    async def describe(self) -> TaskInfo:
        return await self.inner.describe()

    async def given_parameters(self) -> Vector:
        return await self.inner.given_parameters()

    async def train(
        self, anchor: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await self.inner.train(anchor, lane, position=position, max_steps=max_steps)

    async def resume(
        self, lane: Lane, *, position: int | None = None, max_steps: int | None = None
    ) -> None:
        await self.inner.resume(lane, position=position, max_steps=max_steps)

    async def collect(self) -> Work:
        return self._counted(await self.inner.collect())

    async def hand_over(self, lane: Lane, *, position: int | None = None) -> Work:
        return self._counted(await self.inner.hand_over(lane, position=position))

    async def shift(
        self, local: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await self.inner.shift(local, lane, position=position, max_steps=max_steps)

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> Evaluation:
        return await self.inner.evaluate(parameters, share)

    async def group_losses(self, parameters: Vector, positions: Positions) -> GroupLosses:
        return await self.inner.group_losses(parameters, positions)

    def _counted(self, work: Work) -> Work:
        if self.diverges and work.samples:
            self.diverges = False
            work.delta[:] = np.nan
        if self.poison != 1.0:
            work.delta[:] *= np.float32(self.poison)
        if self._injector.liar is not None:
            work = self._injector.liar.work(work)
        self.collected += work.samples
        return work

    async def release_work(self) -> None:
        await self.inner.release_work()

    async def inner_state(self) -> Vector:
        return await self.inner.inner_state()

    async def restore_inner_state(self, state: Vector) -> None:
        await self.inner.restore_inner_state(state)

    def progress(self) -> Progress:
        return self.inner.progress()

    @property
    def restarts(self) -> int:
        return self.inner.restarts


class NodeListener:
    """What a simulated node reports to its world."""

    def happened(self, node: SimulatedNode, event: JournalEvent) -> None: ...

    def offered(self, node: SimulatedNode, offer: Offer) -> None: ...

    def crashed(self, node: SimulatedNode, error: BaseException) -> None: ...


class SimulatedNode:
    """One node of a world.

    `life` counts its starts. `engine`, `network` and `trainer` are those of the current or the last
    life.
    """

    def __init__(self, index: int, rng: random.Random, samples_per_second: float) -> None:
        self.index = index
        self.secret = rng.randbytes(32)
        self.signer = Signer(self.secret)
        self.owner_records: OwnerRecords | None = None
        self.medium = MemoryMedium()
        self.injector = FaultInjector(random.Random(rng.random()))
        self.samples_per_second = samples_per_second
        self.speed = 1.0
        # By how much its trainer scores faster than it trains; None for the trainer's default.
        self.evaluation_speed: float | None = None
        self.clock_skew_s = 0.0
        # The versions of the rules that its program supports.
        self.supported_rules = KNOWN_RULES
        # What it brings to a run by invitation.
        self.invitation = OwnInvitation()
        # Why its last life did not begin.
        self.refused: UserError | None = None
        self.paused = False
        self.life = 0
        self.alive = False
        self.engine: NativeEngine | None = None
        self.network: FakeNetwork | None = None
        self.trainer: CountingTrainer | None = None
        self._scope = trio.CancelScope()

    @property
    def peer(self) -> PeerId:
        return self.signer.peer

    @property
    def state(self) -> RoundState | None:
        """The state of the round machine."""
        return self.engine.state if self.engine else None

    @property
    def phase(self) -> Phase | None:
        state = self.state
        return state.phase if state else None

    def wall_clock_ns(self) -> int:
        """The time of day as this node's clock shows it."""
        return max(0, int((1e6 + trio.current_time() + self.clock_skew_s) * NANOSECONDS))

    def set_speed(self, factor: float) -> None:
        """Set the trainer's pace, from its next stretch on."""
        self.speed = factor
        if self.trainer is not None:
            self.trainer.inner.samples_per_second = self.samples_per_second * factor

    async def live(
        self,
        swarm: FakeSwarm,
        manifest: SignedManifest,
        parameters: int,
        witness: NodeListener,
        *,
        marked: bool,
    ) -> None:
        """Run one life, until the node stops or is killed.

        A crash of the node's own code is reported as a finding. It is not raised.
        """
        self.life += 1
        self.alive = True
        network = self.network = swarm.network(self.secret)
        quadratic = QuadraticTrainer(
            seed=manifest.open().seed,
            peer=self.peer,
            parameters=parameters,
            samples_per_second=self.samples_per_second * self.speed,
            marked=marked,
            evaluation_speed=self.evaluation_speed,
        )
        self.trainer = CountingTrainer(quadratic, self.injector)
        self.engine = NativeEngine(
            context=engine_context(
                manifest,
                self.signer,
                owner_records=self._kept_records(manifest),
                invitation=self.invitation,
            ),
            ports=NodePorts(
                network=FaultyNetwork(network, self.injector, swarm.schedule.at),
                disk=MemoryDisk(self.medium),
                offload=inline,
                record=partial(witness.happened, self),
                wall_clock_s=lambda: self.wall_clock_ns() / NANOSECONDS,
            ),
            trainer=self.trainer,
            name=f"n{self.index}",
            serial=self.wall_clock_ns,
            exclusion_reason=self._excludes,
            on_event=partial(self._watch, witness),
        )
        try:
            with trio.CancelScope() as self._scope:
                async with network.running():
                    await self.engine.run()
        except Exception as error:  # noqa: BLE001
            # This is the composition root of a simulated node.
            witness.crashed(self, error)
        finally:
            self.alive = False

    def _kept_records(self, manifest: SignedManifest) -> OwnerRecords:
        """Return the owner's records, which outlive the node as its disk does."""
        if self.owner_records is None:
            self.owner_records = OwnerRecords(manifest.run, manifest.open().owner)
        return self.owner_records

    def _excludes(self, peer: PeerId) -> str:
        liar = self.injector.liar
        return liar.excludes(peer) if liar is not None else ""

    def _watch(self, witness: NodeListener, event: Event) -> None:
        if isinstance(event, OfferMade):
            witness.offered(self, event.offer)

    async def ask(self, swarm: FakeSwarm, member: PeerId) -> None:
        """Do what `start --join` does first: ask a member for its run.

        A run of rules that this program does not support is refused.
        """
        network = self.network = swarm.network(self.secret)
        self.refused = None
        try:
            async with network.running():
                with trio.move_on_after(ASK_S):
                    await self._join(network, member)
        finally:
            self.alive = False

    async def _join(self, network: FakeNetwork, member: PeerId) -> None:
        try:
            await fetch_run(network, member, self.supported_rules)
        except UserError as error:
            self.refused = error

    def shift(self, by_s: float) -> None:
        """End the current training later by `by_s`.

        No fault of a port does this. All nodes share one clock, so the deadline itself moves.
        """
        if self.engine is not None:
            self.engine.extend_training(by_s)

    def end(self) -> None:
        """End the process at once, whatever it is doing."""
        self._scope.cancel()
