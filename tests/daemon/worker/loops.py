"""Training loops of small tasks in this process, for tests of the numerics and of what a task may
do.
"""

from __future__ import annotations

from daemon.worker import buffers
from daemon.worker.device import Device
from daemon.worker.loop import TrainingLoop
from daemon.worker.settings import Job, WorkerSettings
from daemon.worker.tasks.task import Task
from protocol.identity import Signer
from protocol.initial import initial_parameters
from protocol.manifest import Inner
from protocol.ports import Lane

SETTINGS = WorkerSettings(device="cpu", threads=1)
LANE = Lane(base=0, index=0, stride=1)


def loop_of(
    task: Task, name: str = "test:Task", inner: Inner | None = None
) -> tuple[TrainingLoop, buffers.Buffers]:
    """A loop that was not set to work, and what it shares."""
    job = Job(
        task=name,
        task_options={},
        seed=3,
        inner=inner or Inner(batch_size=4),
        peer=Signer(bytes(32)).peer,
    )
    loop = TrainingLoop(task, Device(SETTINGS), job)
    fd = buffers.create()
    buffers.give_size(fd, loop.parameters, loop.inner_size)
    shared = buffers.Buffers(fd, loop.parameters, loop.inner_size)
    loop.share(shared)
    shared.anchor[:] = initial_parameters(loop.specs, 3)
    return loop, shared


def training(task: Task, inner: Inner | None = None) -> TrainingLoop:
    """A loop at its first step."""
    loop, _ = loop_of(task, inner=inner)
    loop.train(LANE, None)
    return loop
