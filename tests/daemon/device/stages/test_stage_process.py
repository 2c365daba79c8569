"""Tests the real process of a stage: killed, restarted, cancelled, and models it cannot load."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import trio

from daemon.device.process.local_model import ModelOnDisk, open_local_model
from daemon.device.process.stage_process import StageProcess
from daemon.device.process.stage_worker import StageWorker
from daemon.device.settings import WorkerSettings
from daemon.device.stages.messages import LoadStage
from protocol.errors import UserError
from protocol.inference.layers import LayerRange
from protocol.ports.stage import StageLost
from tests.daemon.device.stages.run_models import write_byte_gpt

pytestmark = pytest.mark.real

SETTINGS = WorkerSettings(device="cpu", threads=1)
WHOLE = LayerRange(first=0, stop=3)
PROMPT = np.frombuffer(b"import ", np.uint8).astype(np.int32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelOnDisk:
    """A byte GPT with random weights, read once."""
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_byte_gpt(file)
    return trio.run(open_local_model, file, "bytes", SETTINGS)


def worker_of(
    model: ModelOnDisk, started: list[StageProcess], digest: bytes | None = None
) -> StageWorker:
    """A stage of all layers, which notes its processes."""

    def spawn() -> StageProcess:
        started.append(StageProcess(SETTINGS))
        return started[-1]

    begin = LoadStage(
        source=str(model.source),
        layers=WHOLE,
        cache_tokens=64,
        digests={shard.name: digest or shard.digest for shard in model.manifest.shards},
        settings=SETTINGS,
    )
    return StageWorker(begin, model.manifest, spawn=spawn)


async def test_killed_stage_restarts_without_caches_and_replays_the_same_bits(
    model: ModelOnDisk,
) -> None:
    started: list[StageProcess] = []
    stage = worker_of(model, started)
    async with stage.running():
        await stage.open(b"one", WHOLE, 32)
        first = await stage.step(b"one", 0, PROMPT)
        os.kill(started[0].child.pid, signal.SIGKILL)
        # The child is reaped a little after its death, and a call in between fails too.
        while not started[0].child.reaped:
            await trio.sleep(0.01)
        with pytest.raises(StageLost, match="process"):
            await stage.step(b"one", len(PROMPT), PROMPT[:1])
        await stage.describe()
        with pytest.raises(StageLost, match="no such generation"):
            await stage.step(b"one", len(PROMPT), PROMPT[:1])
        await stage.open(b"one", WHOLE, 32)
        assert (await stage.step(b"one", 0, PROMPT)).tobytes() == first.tobytes()
    assert all(process.child.reaped for process in started)


async def test_cancelled_step_does_not_mix_its_result_into_the_next_one(model: ModelOnDisk) -> None:
    started: list[StageProcess] = []
    stage = worker_of(model, started)
    async with stage.running():
        await stage.open(b"one", WHOLE, 32)
        expected = await stage.step(b"one", 0, PROMPT)
        await stage.open(b"two", WHOLE, 32)
        await stage.close(b"one")
        await stage.open(b"one", WHOLE, 32)
        with trio.move_on_after(0):
            await stage.step(b"two", 0, PROMPT[::-1].copy())
        assert (await stage.step(b"one", 0, PROMPT)).tobytes() == expected.tobytes()


async def test_stage_whose_weights_are_others_says_so_and_is_not_restarted(
    model: ModelOnDisk,
) -> None:
    started: list[StageProcess] = []
    stage = worker_of(model, started, digest=bytes(32))
    async with stage.running():
        with pytest.raises(UserError, match="not the one of the model"):
            await stage.describe()
        with pytest.raises(UserError, match="not the one of the model"):
            await stage.open(b"one", WHOLE, 8)
    assert len(started) == 1


async def test_model_that_cannot_be_read_is_an_error_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be served"):
        await open_local_model(tmp_path, "nothing", SETTINGS)


def test_tokenizer_of_a_byte_model_keeps_every_text(model: ModelOnDisk) -> None:
    assert (model.manifest.tokenizer, model.tokenizer_file()) == ("bytes", b"")
    text = "naïve 東京\n"
    assert model.tokenizer().decode(model.tokenizer().encode(text)) == text
    assert model.manifest.first_token == ord("\n")
