"""The fake stage passes the suite of `Stage` in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from protocol.inference.layers import LayerRange
from protocol.ports.stage import Stage
from simulator.fakes.stage import FAKE_MODEL, FakeStage
from tests.ports.stage_suite import StageFactory, StageSuite, run, same, tokens, whole

pytestmark = pytest.mark.virtual_time


class FakeStages:
    """Makes fake stages. Satisfies `StageFactory`."""

    manifest = FAKE_MODEL

    @asynccontextmanager
    async def __call__(self, layers: LayerRange, cache_tokens: int = 256) -> AsyncIterator[Stage]:
        yield FakeStage(layers, cache_tokens)


class TestFakeStage(StageSuite):
    @pytest.fixture
    def make_stage(self) -> StageFactory:
        return FakeStages()


async def test_bits_of_the_fake_stage_depend_on_the_chunks() -> None:
    stage, ids = FakeStage(whole(FAKE_MODEL), 256), tokens(FAKE_MODEL, 8)
    at_once = await run(stage, b"one", [ids])
    singly = await run(stage, b"two", [ids[index : index + 1] for index in range(8)])
    assert not same(at_once[-1:], singly[-1:])
    assert np.allclose(at_once[-1], singly[-1], atol=1e-2)
