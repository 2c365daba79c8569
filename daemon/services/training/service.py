"""The training service: the worker, and the engine that the run's manifest names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from daemon.device.group.worker_group import WorkerGroup
from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import devices_of
from daemon.disk.initial_file import InitialFile
from daemon.disk.task_file import save_task
from daemon.home.batch_parts import BatchPartFile
from daemon.home.run_branches import read_followed
from daemon.services.service import ServiceContext, ServiceStatus
from daemon.services.training.engine import Engine
from daemon.services.training.hivemind.engine import HivemindEngine
from daemon.services.training.hivemind.settings import peer_settings
from daemon.services.training.native.engine import NativeEngine
from daemon.services.training.native.engine_context import DiskRules, NodePorts, engine_context
from daemon.services.training.worker_settings import shared_worker_settings
from daemon.system.trio_types import TaskStatus
from protocol.errors import OurFault
from protocol.identity import PeerId
from protocol.journal import Warned
from protocol.messages.offer import Binding
from protocol.ports.disk import DiskFull
from protocol.ports.network import Network
from protocol.run.task_digest import TaskDigest


class TrainingService:
    """Trains one model with the other nodes of a run. Satisfies `Service`."""

    def __init__(
        self,
        context: ServiceContext,
        *,
        binding: Binding | None,
        exclusion_reason: Callable[[PeerId], str],
        previous_task: TaskDigest | None,
    ) -> None:
        """Prepare the service without starting anything.

        Args:
            context: What the node gives to each service.
            binding: Names the wallet that the node's offers are paid to.
            exclusion_reason: Returns why a peer may not be in this node's plans; "" if it may.
            previous_task: The task of the model that the home holds, where it holds one.
        """
        self._context = context
        self._binding, self._exclusion_reason = binding, exclusion_reason
        self._engine: Engine | None = None
        self._started = False
        manifest, settings = context.manifest.open(), shared_worker_settings(context.config)

        def batch_part(device: str) -> BatchPartFile:
            # What the memory of a step depends on, beside the device itself.
            depends_on = (
                *(manifest.task, sorted(manifest.task_options.items()), manifest.inner.batch_size),
                *(device, settings.precision, settings.compile, settings.memory_gb),
            )
            return BatchPartFile(context.config.home, depends_on)

        self._worker: WorkerTrainer | WorkerGroup = (
            WorkerTrainer(
                manifest,
                context.signer.peer,
                settings,
                context.record,
                previous_task=previous_task,
                parts=batch_part(settings.device),
            )
            if len(devices_of(settings.device)) == 1
            else WorkerGroup(
                manifest,
                context.signer.peer,
                settings,
                context.record,
                offload=context.offload,
                previous_task=previous_task,
                parts=batch_part,
            )
        )

    def register(self, network: Network) -> None:
        """Make the engine, which registers its protocols."""
        uses_hivemind = self._context.manifest.open().engine == "hivemind"
        self._engine = self._hivemind(network) if uses_hivemind else self._native(network)

    @asynccontextmanager
    async def resources(self) -> AsyncIterator[None]:
        """Start the worker process, and end it on exit."""
        async with self._worker.running():
            yield

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the engine until `finish` was called."""
        engine = self._registered()
        async with trio.open_nursery() as nursery:

            async def run_engine(*, task_status: TaskStatus[None]) -> None:
                await engine.run(task_status=task_status)
                nursery.cancel_scope.cancel()

            await nursery.start(run_engine)
            self._started = True
            task_status.started()
            nursery.start_soon(self._save_task)

    async def hold(self, held: bool) -> None:
        """Pause training, or train again."""
        await self._registered().hold(held)

    def finish(self) -> None:
        """End the engine in order."""
        self._registered().finish()

    def status(self) -> ServiceStatus:
        """Return "failed" where the task failed for good before any sample was trained."""
        if self._worker.gave_up and not self._worker.trained:
            return ServiceStatus(name="training", state="failed", detail="the task cannot run")
        return ServiceStatus(name="training", state="running" if self._started else "starting")

    def _registered(self) -> Engine:
        if self._engine is None:
            raise OurFault("the training service was used before its protocols were registered")
        return self._engine

    def _disk_rules(self) -> DiskRules:
        disk = self._context.config.disk
        return DiskRules(
            full_state_s=disk.full_state_s, hourly_bytes=int(disk.gb_per_hour * 1_000_000_000)
        )

    def _native(self, network: Network) -> Engine:
        context = self._context
        return NativeEngine(
            context=engine_context(
                context.manifest,
                context.signer,
                self._binding,
                self._disk_rules(),
                context.config.worker.evaluation_share,
                InitialFile(context.config.home, context.manifest.run),
                invitation=context.invitation,
                owner_records=context.owner_records,
                followed=partial(read_followed, context.config.home, context.manifest.run),
            ),
            ports=NodePorts(
                network=network,
                disk=context.disk,
                offload=context.offload,
                record=context.record,
            ),
            trainer=self._worker,
            name=context.config.node.name,
            serial=context.next_serial,
            exclusion_reason=self._exclusion_reason,
        )

    def _hivemind(self, network: Network) -> Engine:
        """Make the hivemind engine. Raises `UserError` for a run that hivemind cannot do."""
        context, given = self._context, self._context.config.network
        peer = peer_settings(given.listen_host, given.hivemind_port, given.advertise)
        return HivemindEngine(context, network, self._worker, peer)

    async def _save_task(self) -> None:
        """Write down the task, so that the next start knows whether its task fits the model."""
        context = self._context
        task = (await self._worker.describe()).task
        try:
            await context.offload(
                partial(save_task, context.config.home, context.manifest.run, task)
            )
        except DiskFull as full:
            context.record(
                Warned(
                    code="DISK_FULL",
                    message=f"The next start cannot check that its task is the same: {full}",
                )
            )
