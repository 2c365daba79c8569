"""One worker process for each device that the owner names, as one trainer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec.structs import replace

from daemon.device.group.group_events import GroupEvents
from daemon.device.group.trainer_group import TrainerGroup
from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings, choose_threads, devices_of
from daemon.home.batch_parts import BatchPartFile
from protocol.identity import PeerId
from protocol.journal import JournalEvent
from protocol.ports.offload import Offload
from protocol.run.manifest import Manifest
from protocol.run.task_digest import TaskDigest


class WorkerGroup(TrainerGroup):
    """Satisfies `Trainer` with a worker for each device, inside the block of `running()`."""

    def __init__(
        self,
        manifest: Manifest,
        peer: PeerId,
        settings: WorkerSettings,
        on_event: Callable[[JournalEvent], None],
        *,
        offload: Offload,
        previous_task: TaskDigest | None,
        parts: Callable[[str], BatchPartFile],
    ) -> None:
        """Prepare the workers, of which none starts.

        Args:
            manifest: The run.
            peer: The node that the workers work for.
            settings: Those of the owner. The devices share its threads, where it names none.
            on_event: The journal.
            offload: Runs sums of whole vectors.
            previous_task: As for `WorkerTrainer`.
            parts: Returns the file of a device's batch size.
        """
        devices = devices_of(settings.device)
        events = GroupEvents(devices, on_event)
        threads = settings.threads or max(1, choose_threads(0) // len(devices))
        self._workers = [
            WorkerTrainer(
                manifest,
                peer,
                replace(settings, device=device, threads=threads),
                events.of(number),
                previous_task=previous_task,
                parts=parts(device),
            )
            for number, device in enumerate(devices)
        ]
        super().__init__(self._workers, offload, events.warn)

    @property
    def gave_up(self) -> bool:
        """Whether no worker is restarted any more."""
        return all(worker.gave_up for worker in self._workers)

    @property
    def trained(self) -> bool:
        """Whether any sample was trained since the node started."""
        return any(worker.trained for worker in self._workers)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the workers running inside the block, as `WorkerTrainer.running`."""
        async with AsyncExitStack() as stack:
            for worker in self._workers:
                await stack.enter_async_context(worker.running())
            yield
