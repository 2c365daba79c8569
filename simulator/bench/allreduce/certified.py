"""Whole certified rounds of the native engine, from the offer to the ledger.

Only trainer and disk are missing.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import announce
from daemon.services.training.native.engine import NativeEngine
from daemon.services.training.native.engine_context import NodePorts, engine_context
from daemon.system.offload import in_abandonable_thread, in_thread
from protocol.averaging.vector_layout import Vector
from protocol.identity import Signer
from protocol.journal import JournalEvent
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
    Work,
)
from protocol.round import events as e
from protocol.run.manifest import Limits, Manifest, Outer, RoundRules, seal
from simulator.bench.allreduce.driver import AveragingFailure, CommandPipe, DriverSettings, serve
from simulator.bench.allreduce.native import secret_of
from simulator.bench.allreduce.null_disk import NullDisk

# Rounds end when the benchmark says so.
ROUND_S = 86400.0
# Until all peers know each other.
MEET_S = 60.0
# The time for one round.
TIMEOUT_S = 120.0


class VectorTrainer:
    """A `Trainer` that hands over the vector that it was given, once."""

    restarts = 0

    def __init__(self, elements: int) -> None:
        self._nothing: Vector = np.zeros(elements, np.float32)
        self._given: Vector | None = None
        self._elements = elements

    def give(self, vector: Vector) -> None:
        self._given = vector

    async def describe(self) -> TaskInfo:
        await trio.lowlevel.checkpoint()
        spec = ParameterSpec(name="content", shape=(self._elements,), init="zeros")
        return TaskInfo(
            parameters=self._elements,
            specs=(spec,),
            dataset_size=1 << 20,
            device="simulated",
            threads=1,
        )

    async def given_parameters(self) -> Vector:
        await trio.lowlevel.checkpoint()
        return self._nothing

    async def train(
        self, anchor: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()

    async def resume(
        self, lane: Lane, *, position: int | None = None, max_steps: int | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()

    async def collect(self) -> Work:
        await trio.lowlevel.checkpoint()
        given, self._given = self._given, None
        if given is None:
            return Work(delta=self._nothing, samples=0, steps=0, loss=None, seconds=0.0)
        return Work(delta=given, samples=1, steps=1, loss=1.0, seconds=0.0)

    async def hand_over(self, lane: Lane, *, position: int | None = None) -> Work:
        return await self.collect()

    async def shift(
        self, local: Vector, lane: Lane, *, position: int = 0, max_steps: int | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()

    async def evaluate(self, parameters: Vector, share: HeldOutShare) -> Evaluation:
        await trio.lowlevel.checkpoint()
        raise EvaluationFailed("a given vector cannot be scored")

    async def release_work(self) -> None:
        await trio.lowlevel.checkpoint()

    async def group_losses(self, parameters: Vector, positions: Positions) -> GroupLosses:
        await trio.lowlevel.checkpoint()
        raise EvaluationFailed("a given vector cannot be scored")

    async def inner_state(self) -> Vector:
        await trio.lowlevel.checkpoint()
        return np.zeros(0, np.float32)

    async def restore_inner_state(self, state: Vector) -> None:
        await trio.lowlevel.checkpoint()

    def progress(self) -> Progress:
        return Progress(steps=0, samples=0, loss=None, samples_per_second=0.0)


class CertifiedDriver:
    """The whole engine in one peer.

    The outer optimizer moves by the mean itself, so that the anchor's step shows the mean.
    """

    def __init__(self, settings: DriverSettings, network: LibP2PNetwork) -> None:
        self._settings, self._network = settings, network
        manifest = Manifest(
            name="allreduce",
            task="content",
            codec=settings.codec,
            outer=Outer(learning_rate=1.0, momentum=0.0),
            round=RoundRules(seconds=ROUND_S, min_seconds=ROUND_S),
            limits=Limits(max_samples=1),
        )
        self.signed = seal(manifest)
        self.trainer = VectorTrainer(settings.elements)
        self._journal: list[JournalEvent] = []
        self._adopted = trio.Event()
        self.engine = NativeEngine(
            context=engine_context(self.signed, Signer(secret_of(settings.index))),
            ports=NodePorts(
                network=network,
                disk=NullDisk(),
                offload=in_thread,
                record=self._journal.append,
            ),
            trainer=self.trainer,
            name=f"peer {settings.index}",
            serial=time.time_ns,
            on_event=self._watch,
        )
        self._before: Vector = np.zeros(settings.elements, np.float32)

    def _watch(self, event: e.Event) -> None:
        if isinstance(event, e.CertificateAdopted):
            self._adopted.set()

    @property
    def _others(self) -> int:
        """Members at this peer's tip."""
        state = self.engine.state
        return len(state.live) if state is not None else 0

    async def info(self) -> str:
        return self._network.addresses[0]

    async def meet(self, infos: tuple[str, ...]) -> None:
        await self._together()

    async def _together(self) -> None:
        """Wait until beacons report that all others hold this node's tip.

        A round that began earlier would be one of the members known by then.
        """
        with trio.move_on_after(MEET_S):
            while self._others < self._settings.peers - 1:
                await trio.sleep(0.05)
            return
        raise RuntimeError(
            f"{self._others} of {self._settings.peers - 1} others within {MEET_S:.0f} s"
        )

    async def prepare(self, number: int, vector: Vector) -> None:
        store = self.engine.state_store
        assert store is not None
        await self._together()
        self.trainer.give(vector)
        # The codec's error of the last round belongs to another scale.
        store.ledger.residue[:] = 0.0
        self._before[:] = store.anchor.value
        self._journal.clear()

    async def average(self) -> None:
        self._adopted = trio.Event()
        self.engine.end_training()
        with trio.move_on_after(TIMEOUT_S):
            await self._adopted.wait()
            return
        raise AveragingFailure(f"no certificate within {TIMEOUT_S:.0f} s")

    async def result(self) -> Vector:
        store = self.engine.state_store
        assert store is not None
        moved: Vector = self._before - store.anchor.value
        return moved


async def live(pipe: CommandPipe, settings: DriverSettings) -> None:
    joins: tuple[str, ...] = (settings.join,) if settings.join else ()
    with tempfile.TemporaryDirectory(prefix="hypergpu-bench-") as folder:
        certificate = load_or_make(Path(folder) / "bulk.pem", f"peer {settings.index}")
        network = LibP2PNetwork(
            NetworkSettings(listen_host=settings.host, join=joins),
            secret_of(settings.index),
            certificate,
        )
        driver = CertifiedDriver(settings, network)
        async with network.running(), trio.open_nursery() as nursery:
            await nursery.start(driver.engine.run)
            nursery.start_soon(announce, network, driver.signed)
            await serve(
                pipe,
                settings,
                driver,
                partial(in_abandonable_thread, pipe.next),
            )
            nursery.cancel_scope.cancel()


def run(pipe: CommandPipe, settings: DriverSettings) -> None:
    trio.run(live, pipe, settings)
