"""A node's place in a simulated world: its key, its disk and its lives. Each life runs the real engine on fake ports."""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.engines.native.engine import NativeEngine
from protocol.identity import PeerId, Signer
from protocol.journal import Event
from protocol.manifest import SignedManifest
from protocol.ports import Lane, Progress, TaskInfo, Vector, Work, inline
from simulator.fakes.disk import MemoryDisk, MemoryMedium
from simulator.fakes.network import FakeSwarm
from simulator.fakes.node import FakeNetwork
from simulator.fakes.trainer import QuadraticTrainer


class CountingTrainer:
    """A trainer that remembers how many samples it handed over, so that a world can check where they went."""

    def __init__(self, inner: QuadraticTrainer) -> None:
        self.inner = inner
        self.collected = 0

    async def describe(self) -> TaskInfo:
        return await self.inner.describe()

    async def train(self, anchor: Vector, lane: Lane, *, max_steps: int | None = None) -> None:
        await self.inner.train(anchor, lane, max_steps=max_steps)

    async def resume(self, lane: Lane, *, max_steps: int | None = None) -> None:
        await self.inner.resume(lane, max_steps=max_steps)

    async def collect(self) -> Work:
        work = await self.inner.collect()
        self.collected += work.samples
        return work

    async def inner_state(self) -> Vector:
        return await self.inner.inner_state()

    async def restore_inner_state(self, state: Vector) -> None:
        await self.inner.restore_inner_state(state)

    def progress(self) -> Progress:
        return self.inner.progress()

    @property
    def restarts(self) -> int:
        return self.inner.restarts


class Seat:
    """One node. `life` counts its starts; `engine`, `network` and `trainer` are those of the current or last life."""

    def __init__(self, index: int, secret: bytes, medium: MemoryMedium, samples_per_second: float) -> None:
        self.index = index
        self.secret = secret
        self.signer = Signer(secret)
        self.medium = medium
        self.samples_per_second = samples_per_second
        self.life = 0
        self.alive = False
        self.engine: NativeEngine | None = None
        self.network: FakeNetwork | None = None
        self.trainer: CountingTrainer | None = None
        self._scope = trio.CancelScope()

    @property
    def peer(self) -> PeerId:
        return self.signer.peer

    async def live(
        self, swarm: FakeSwarm, manifest: SignedManifest, parameters: int, record: Callable[[Event], None], serial: Callable[[], int]
    ) -> None:
        """One life, to its end: until it is stopped or killed."""
        self.life += 1
        self.alive = True
        network = self.network = swarm.network(self.secret)
        quadratic = QuadraticTrainer(
            seed=manifest.open().seed, peer=self.peer, parameters=parameters, samples_per_second=self.samples_per_second
        )
        self.trainer = CountingTrainer(quadratic)
        self.engine = NativeEngine(
            name=f"n{self.index}",
            manifest=manifest,
            signer=self.signer,
            network=network,
            trainer=self.trainer,
            disk=MemoryDisk(self.medium),
            offload=inline,
            record=record,
            serial=serial,
        )
        try:
            with trio.CancelScope() as self._scope:
                async with network.running():
                    await self.engine.run()
        finally:
            self.alive = False

    def end(self) -> None:
        """The process is gone, whatever it was doing."""
        self._scope.cancel()
