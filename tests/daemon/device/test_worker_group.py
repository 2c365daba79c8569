"""Several workers of one node: real processes on the CPU, and what they report."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trio

from daemon.config.checks import MAX_DEVICES, check_device
from daemon.device.group.group_events import GroupEvents
from daemon.device.group.worker_group import WorkerGroup
from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from daemon.home.batch_parts import BatchPartFile
from protocol.identity import Signer
from protocol.journal import (
    JournalEvent,
    TrainerReady,
    TrainerStopped,
    TrainingProgress,
    Warned,
)
from protocol.ports.offload import inline
from protocol.ports.trainer import Lane
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Inner, Manifest

PEER = Signer(bytes(32)).peer
LANE, NEXT = Lane(base=0, index=1, stride=3), Lane(base=4096, index=1, stride=3)
MANIFEST = Manifest(
    name="tiny",
    task="byte_gpt",
    task_options={"layers": 1, "heads": 2, "width": 16, "context": 16, "corpus_bytes": 100_000},
    inner=Inner(batch_size=4),
)
ONE = WorkerSettings(device="cpu", threads=1)
TWO = WorkerSettings(device="cpu,cpu", threads=1)


def group_of(folder: Path, record: Callable[[JournalEvent], None]) -> WorkerGroup:
    return WorkerGroup(
        MANIFEST,
        PEER,
        TWO,
        record,
        offload=inline,
        previous_task=None,
        parts=lambda device: BatchPartFile(folder, device),
    )


@pytest.mark.real
async def test_two_workers_offer_what_two_nodes_would_and_one_may_die(tmp_path: Path) -> None:
    events: list[JournalEvent] = []
    group = group_of(tmp_path, events.append)
    single = WorkerTrainer(MANIFEST, PEER, ONE, lambda event: None)
    with trio.fail_after(180):
        async with group.running(), single.running():
            info = await group.describe()
            assert info.device == "2 x cpu (1 thread)"
            assert info.threads == 2
            anchor = initial_parameters(info.specs, 0)
            await group.train(anchor, LANE, max_steps=5)
            while group.progress().steps < 5:
                await trio.sleep(0.01)
            work = await group.hand_over(NEXT)
            assert (work.steps, work.samples, work.drawn) == (5, 40, 40)
            wanted = np.zeros_like(anchor)
            for number in range(2):
                await single.describe()
                await single.restore_inner_state(np.zeros_like(await single.inner_state()))
                await single.train(anchor, LANE.part(number, 2), max_steps=5)
                while single.progress().steps < 5:
                    await trio.sleep(0.01)
                wanted += (await single.collect()).delta / 2
            # The same samples, steps and rules: only the order of sums may differ.
            assert np.linalg.norm(work.delta - wanted) <= 1e-5 * np.linalg.norm(wanted)
            await group.shift(anchor - work.delta, NEXT)
            victim = group._workers[1]._supervisor.current
            assert victim is not None
            os.kill(victim.process.pid, signal.SIGKILL)
            while not any(isinstance(event, Warned) for event in events):
                await trio.sleep(0.01)
            alone = await group.hand_over(NEXT)
            assert alone.samples > 0
            assert group.restarts == 0
            local = anchor - work.delta - alone.delta
            await group.shift(local, NEXT, max_steps=3)
            # The killed worker is back after a second and the start of torch.
            await group._workers[1].describe()
            await group.hand_over(NEXT)
            await group.shift(local, LANE, max_steps=3)
            while group.progress().steps < 3:
                await trio.sleep(0.01)
            assert (await group.collect()).samples == 24
    ready = [event for event in events if isinstance(event, TrainerReady)]
    assert ready[0].device == "2 x cpu (1 thread)"
    assert not any(isinstance(event, TrainerStopped) for event in events)
    assert any("the other devices train on" in each.message for each in _warnings(events))


def _warnings(events: list[JournalEvent]) -> list[Warned]:
    return [event for event in events if isinstance(event, Warned)]


def test_group_events_report_one_trainer() -> None:
    events: list[JournalEvent] = []
    group = GroupEvents(("cuda:0", "cuda:1"), events.append)
    first, second = group.of(0), group.of(1)
    first(TrainerReady(device="A", parameters=10, threads=1))
    assert events == []
    second(TrainerReady(device="B", parameters=10, threads=1))
    assert events == [TrainerReady(device="A, B", parameters=10, threads=2)]
    events.clear()
    first(TrainingProgress(samples=30, loss=1.0, samples_per_second=3.0))
    second(TrainingProgress(samples=10, loss=3.0, samples_per_second=1.0))
    assert events[-1] == TrainingProgress(samples=40, loss=1.5, samples_per_second=4.0)
    events.clear()
    second(TrainerStopped(reason="it was killed", restarts=1))
    [warning] = _warnings(events)
    assert warning.message == (
        "The worker on cuda:1 stopped, and the other devices train on: it was killed."
    )
    events.clear()
    first(TrainerStopped(reason="it was killed", restarts=1))
    assert events == [TrainerStopped(reason="cuda:0: it was killed", restarts=1)]


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda:1", "cuda:0,cuda:1", "cpu, cpu"])
def test_check_device_accepts_devices(device: str) -> None:
    check_device(device)


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("cuda:0,cuda:0", "'cuda:0' is named 2 times"),
        ("auto,cuda:1", "'auto' names no single device"),
        ("cuda:0,", "'' is not one of"),
        (",".join(["cpu"] * (MAX_DEVICES + 1)), "17 devices are named"),
    ],
)
def test_check_device_refuses_what_names_no_devices(device: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_device(device)
