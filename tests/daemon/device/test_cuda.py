"""Tests of training on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trio

from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.ports.trainer import Lane
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Inner, Manifest
from tests.daemon.device.recorded_events import RecordedEvents

MANIFEST = Manifest(
    name="test",
    task="byte_gpt",
    task_options={"layers": 2, "width": 64, "context": 64},
    inner=Inner(learning_rate=2e-3),
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@pytest.mark.real
@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
async def test_a_worker_trains_on_a_gpu(events: RecordedEvents, precision: str) -> None:
    settings = WorkerSettings(device="cuda", precision=precision)
    trainer = WorkerTrainer(MANIFEST, Signer(bytes(32)).peer, settings, events)
    with trio.fail_after(120):
        async with trainer.running():
            info = await trainer.describe()
            assert "GB" in info.device
            anchor = initial_parameters(info.specs, 0)
            await trainer.train(anchor, Lane(base=0, index=0, stride=1), max_steps=100)
            while trainer.progress().steps < 100:
                await trio.sleep(0.01)
            work = await trainer.collect()
            assert (work.steps, work.samples) == (100, 800)
            assert work.loss is not None
            assert work.loss < 5.0
            assert np.isfinite(work.delta).all()
            state = await trainer.inner_state()
            await trainer.restore_inner_state(state)
            assert (await trainer.inner_state()).tobytes() == state.tobytes()


@pytest.mark.real
async def test_a_worker_names_a_device_that_does_not_exist(events: RecordedEvents) -> None:
    trainer = WorkerTrainer(
        MANIFEST, Signer(bytes(32)).peer, WorkerSettings(device="cuda:77"), events
    )
    with trio.fail_after(60):
        async with trainer.running():
            with pytest.raises(UserError, match="cuda:77"):
                await trainer.describe()
