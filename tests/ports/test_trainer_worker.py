"""The worker process passes the suite of the Trainer port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from protocol.identity import Signer
from protocol.ports.trainer import Trainer
from protocol.run.manifest import Inner, Manifest
from tests.ports.trainer_evaluation_suite import TrainerEvaluationSuite
from tests.ports.trainer_overlap_suite import TrainerOverlapSuite
from tests.ports.trainer_suite import TrainerFactory, TrainerSuite

PEER = Signer(bytes(32)).peer
MANIFEST = Manifest(
    name="tiny",
    task="byte_gpt",
    task_options={"layers": 1, "heads": 2, "width": 16, "context": 16, "corpus_bytes": 100_000},
    inner=Inner(batch_size=4),
)


@pytest.mark.real
class TestWorkerTrainer(TrainerSuite, TrainerOverlapSuite, TrainerEvaluationSuite):
    @pytest.fixture
    def make_trainer(self) -> TrainerFactory:
        @asynccontextmanager
        async def make() -> AsyncIterator[Trainer]:
            trainer = WorkerTrainer(
                MANIFEST, PEER, WorkerSettings(device="cpu", threads=1), lambda event: None
            )
            async with trainer.running():
                yield trainer

        return make
