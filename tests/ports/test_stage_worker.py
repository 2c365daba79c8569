"""Runs the property suite of `ports.Stage` on real processes, with a byte GPT."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from daemon.device.process.local_model import ModelOnDisk, open_local_model
from daemon.device.settings import WorkerSettings
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.ports.stage import Stage
from tests.daemon.device.stages.run_models import write_byte_gpt
from tests.ports.stage_suite import CACHE_TOKENS, StageFactory, StageSuite

pytestmark = pytest.mark.real

SETTINGS = WorkerSettings(device="cpu", threads=1)


class RealStages:
    """Satisfies `StageFactory` with processes."""

    def __init__(self, model: ModelOnDisk) -> None:
        self._model = model

    @property
    def manifest(self) -> ModelManifest:
        return self._model.manifest

    def __call__(
        self, layers: LayerRange, cache_tokens: int = CACHE_TOKENS
    ) -> AbstractAsyncContextManager[Stage]:
        return self._model.stage(layers, cache_tokens)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelOnDisk:
    """A byte GPT with random weights, read once."""
    file: Path = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_byte_gpt(file)
    return trio.run(open_local_model, file, "bytes", SETTINGS)


@pytest.fixture
def make_stage(model: ModelOnDisk) -> StageFactory:
    return RealStages(model)


# A process for each test takes two seconds of CPU. The quick tests of the same rules are in
# tests/daemon/device/stages.
@pytest.mark.slow
class TestStageWorker(StageSuite):
    """Each test starts processes of its own."""
