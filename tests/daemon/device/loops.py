"""Builds training loops in this process, for tests of numerics and of the rules for tasks."""

from __future__ import annotations

from daemon.device import shared_memory
from daemon.device.loops.training import TrainingLoop
from daemon.device.processor import Device
from daemon.device.settings import Job, WorkerSettings
from daemon.device.tasks.task import Task
from protocol.identity import Signer
from protocol.ports.trainer import Lane
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Inner

SETTINGS = WorkerSettings(device="cpu", threads=1)
LANE = Lane(base=0, index=0, stride=1)


def loop_of(
    task: Task,
    name: str = "test:Task",
    inner: Inner | None = None,
    settings: WorkerSettings = SETTINGS,
    *,
    holds_out: bool = False,
) -> tuple[TrainingLoop, shared_memory.SharedMemory]:
    """Return a loop that does not train yet, and its shared memory with the anchor."""
    job = Job(
        task=name,
        task_options={},
        seed=3,
        inner=inner or Inner(batch_size=4),
        peer=Signer(bytes(32)).peer,
        holds_out=holds_out,
    )
    loop = TrainingLoop(task, Device(settings), job)
    fd = shared_memory.create()
    shared_memory.give_size(fd, loop.parameters, loop.inner_size)
    shared = shared_memory.SharedMemory(fd, loop.parameters, loop.inner_size)
    loop.share(shared)
    shared.anchor[:] = initial_parameters(loop.specs, 3, shared.anchor.copy())
    return loop, shared


def training(task: Task, inner: Inner | None = None) -> TrainingLoop:
    """Return a loop before its first step."""
    loop, _ = loop_of(task, inner=inner)
    loop.train(LANE, None)
    return loop
