"""A trainer whose steps a test makes, and a node's link to it without rounds and peers.

Step i moves coordinate i by one and uses one sample. So a vector shows which steps it holds, and
how often.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trio
from msgspec.structs import replace

from daemon.services.training.native.engine_context import engine_context
from daemon.services.training.native.state.state_store import StateStore
from daemon.services.training.native.training.trainer_link import TrainerLink
from daemon.swarm.lineage import Lineage
from protocol.averaging.vector_layout import Vector
from protocol.certificates.tip import Tip
from protocol.contribution.ledger_disk import restore_ledger
from protocol.journal import JournalEvent
from protocol.ports.offload import inline
from protocol.ports.trainer import (
    Evaluation,
    EvaluationFailed,
    GroupLosses,
    HeldOutShare,
    Lane,
    ParameterSpec,
    Positions,
    Progress,
    TaskInfo,
    TrainerLost,
    Work,
)
from protocol.run.manifest import Manifest, Outer, seal
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.medium import MemoryMedium
from tests.protocol.rounds import people

PARAMETERS = 512
NODE = people(1)[0]
INFO = TaskInfo(
    parameters=PARAMETERS,
    specs=(ParameterSpec(name="steps", shape=(PARAMETERS,), init="zeros"),),
    dataset_size=1 << 20,
    device="scripted",
    threads=1,
)
MANIFEST = Manifest(name="scripted", task="scripted", outer=Outer(learning_rate=1.0, momentum=0.0))


class ScriptedTrainer:
    """A `Trainer` that makes a step where the test says so.

    Each call passes two points, before and after its effect. `at_point` is called there.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self.flat: Vector = np.zeros(PARAMETERS, np.float32)
        self.start: Vector = np.zeros(PARAMETERS, np.float32)
        # The steps since the last hand-over.
        self.steps = 0
        self.made = 0
        # Steps that died with the trainer.
        self.lost = 0
        self.anchored = self.running = False
        self.lane = Lane(base=0, index=0, stride=1)
        self.drawn = 0
        self.position = 0
        self.at_point: Callable[[], None] = lambda: None

    def step(self, count: int = 1) -> None:
        """Make steps, if the trainer trains."""
        for _ in range(count if self.running else 0):
            self.flat[self.made] -= 1.0
            self.made += 1
            self.steps += 1
            self.drawn += 1
            self.position += 1

    def die(self) -> None:
        self.restarts += 1
        self.lost += self.steps
        self.steps = 0
        self.anchored = self.running = False

    async def _point(self) -> None:
        restarts = self.restarts
        self.at_point()
        await trio.lowlevel.checkpoint()
        if self.restarts != restarts:
            raise TrainerLost("it died")

    async def describe(self) -> TaskInfo:
        await trio.lowlevel.checkpoint()
        return INFO

    async def given_parameters(self) -> Vector:
        raise TrainerLost("this task gives no values")

    async def train(
        self, anchor: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await self._point()
        assert not self.steps, f"{self.steps} steps would be lost"
        self.flat, self.start = anchor.copy(), anchor.copy()
        self.lane, self.drawn, self.position = lane, 0, position
        self.anchored = self.running = True
        await self._point()

    async def resume(
        self, lane: Lane, *, position: int | None = None, max_steps: int | None = None
    ) -> None:
        raise AssertionError("an overlapping trainer never pauses in a round")

    async def collect(self) -> Work:
        work = await self._handed(None)
        self.running = False
        return work

    async def hand_over(self, lane: Lane, *, position: int | None = None) -> Work:
        return await self._handed(lane)

    async def _handed(self, lane: Lane | None) -> Work:
        await self._point()
        if not self.anchored:
            raise TrainerLost("no anchor")
        steps, now, drawn, old = self.steps, self.flat.copy(), self.drawn, self.lane
        work = Work(
            delta=self.start - now,
            samples=steps,
            steps=steps,
            loss=1.0 if steps else None,
            seconds=0.1,
            drawn=drawn,
        )
        restarts = self.restarts
        self.at_point()
        # The caller has the work only when the call returns: a cancelled call hands nothing over.
        await trio.lowlevel.checkpoint()
        if self.restarts != restarts:
            raise TrainerLost("it died")
        self.start, self.steps = now, self.steps - steps
        if lane is not None and lane != old:
            self.lane, self.drawn = lane, self.drawn - drawn
        return work

    async def shift(
        self, local: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await self._point()
        if not self.anchored:
            raise TrainerLost("no anchor")
        self.flat, self.start = self.flat + (local - self.start), local.copy()
        self.position = position + self.steps
        if lane != self.lane:
            self.lane, self.drawn = lane, 0
        await self._point()

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> Evaluation:
        raise EvaluationFailed("nothing to score")

    async def release_work(self) -> None:
        await trio.lowlevel.checkpoint()

    async def group_losses(self, parameters: Vector, positions: Positions) -> GroupLosses:
        raise EvaluationFailed("nothing to score")

    async def inner_state(self) -> Vector:
        await self._point()
        return np.ones(2, np.float32)

    async def restore_inner_state(self, state: Vector) -> None:
        await self._point()

    def progress(self) -> Progress:
        return Progress(steps=self.steps, samples=self.steps, loss=None, samples_per_second=1.0)


class LinkedNode:
    """A node's ledger, anchor and trainer. The test adopts anchors in place of rounds."""

    def __init__(self, manifest: Manifest = MANIFEST, medium: MemoryMedium | None = None) -> None:
        self.manifest = manifest
        self.medium = medium or MemoryMedium()
        self.recorded: list[JournalEvent] = []
        # Samples that certificates counted, and samples that the ledger reported as dropped.
        self.certified = self.dropped = 0
        signed = seal(manifest)
        self.disk = MemoryDisk(self.medium)
        self.store = StateStore(
            context=engine_context(signed, NODE),
            info=INFO,
            lineage=Lineage(signed.run, manifest),
            disk=self.disk,
            offload=inline,
            record=self.recorded.append,
        )
        self.trainer = ScriptedTrainer()
        self.link = TrainerLink(self.trainer, self.store, manifest.round, self.recorded.append)

    async def restore(self, tip: Tip, anchor: Vector, *, sent: bool) -> None:
        """Resume at `tip` with the ledger on disk."""
        record = await self.disk.load_ledger(self.store.lineage.root.hash)
        self.store.tip, self.store.ledger_store.tip = tip, tip.hash
        self.store.anchor.value[:] = anchor
        if record is not None:
            restore_ledger(self.store.ledger, record, offer_sent=sent)

    async def offer(self, *, send: bool = True) -> None:
        async with self.link.lock:
            await self.link.make_offer()
        if send:
            self.store.ledger.mark_sent()

    async def adopt(self, anchor: Vector, *, listed: bool, samples: int = 100) -> None:
        """Move to an anchor as `StateSync` does."""
        store = self.store
        async with self.link.lock:
            await self.link.end_trajectory(joining=False)
            seq = store.ledger.offer.seq if listed else None
            tip = replace(
                store.tip,
                number=store.tip.number + 1,
                hash=(store.tip.number + 1).to_bytes(32, "big"),
                samples=store.tip.samples + samples,
                lane_base=store.tip.behind_reserve + store.ledger.drawn * 8,
            )
            self.certified += store.ledger.offer.weight if listed else 0
            self.dropped += store.ledger.settle(seq)
            store.tip, store.ledger_store.tip = tip, tip.hash
            store.anchor.value[:] = anchor
            await self.link.begin_trajectory()
