"""The property suite of `ports.Stage`, for the fake and for every adapter of the worker."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import numpy as np
import pytest

from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.ports.stage import CacheFull, Chunk, Stage, StageLost

# The caches of a stage of the suite.
CACHE_TOKENS = 256
PROMPT = 12
STEPS = 6


class StageFactory(Protocol):
    """Makes stages of one small model with at least two layers and a context of 64 or more.

    All of them hold the same weights.
    """

    @property
    def manifest(self) -> ModelManifest: ...

    def __call__(
        self, layers: LayerRange, cache_tokens: int = ...
    ) -> AbstractAsyncContextManager[Stage]: ...


class StageSuite:
    """What every stage must do."""

    async def test_stage_describes_itself(self, make_stage: StageFactory) -> None:
        layers = LayerRange(first=1, stop=make_stage.manifest.layers)
        async with make_stage(layers, CACHE_TOKENS) as stage:
            info = await stage.describe()
        assert info.layers == layers
        assert info.cache_tokens == CACHE_TOKENS
        assert info.kernel
        assert info.layer_tokens_per_s > 0

    async def test_stage_returns_hidden_states_or_logits(self, make_stage: StageFactory) -> None:
        model = make_stage.manifest
        async with make_stage(whole(model), CACHE_TOKENS) as stage:
            await stage.open(b"front", LayerRange(first=0, stop=1), 32)
            await stage.open(b"back", LayerRange(first=1, stop=model.layers), 32)
            hidden = await stage.step(b"front", 0, tokens(model, PROMPT))
            assert (hidden.dtype, hidden.shape) == (np.float32, (PROMPT, model.width))
            logits = await stage.step(b"back", 0, hidden)
            assert (logits.dtype, logits.shape) == (np.float32, (1, model.vocabulary))
            assert bool(np.isfinite(logits).all())

    async def test_split_stages_compute_what_the_whole_computes(
        self, make_stage: StageFactory
    ) -> None:
        model = make_stage.manifest
        async with make_stage(whole(model), CACHE_TOKENS) as stage:
            alone = await run(stage, b"whole", chunks(model))
        middle = model.layers // 2
        async with (
            make_stage(LayerRange(first=0, stop=middle), CACHE_TOKENS) as front,
            make_stage(LayerRange(first=middle, stop=model.layers), CACHE_TOKENS) as back,
        ):
            hidden = await run(front, b"front", chunks(model))
            split = await run(back, b"back", hidden)
        assert same(split, alone)

    async def test_replay_in_the_same_chunks_is_bit_identical(
        self, make_stage: StageFactory
    ) -> None:
        model = make_stage.manifest
        async with make_stage(whole(model), CACHE_TOKENS) as stage:
            first = await run(stage, b"first", chunks(model))
        async with make_stage(whole(model), CACHE_TOKENS) as stage:
            assert same(await run(stage, b"again", chunks(model)), first)

    async def test_generations_do_not_disturb_each_other(self, make_stage: StageFactory) -> None:
        model = make_stage.manifest
        async with make_stage(whole(model), CACHE_TOKENS) as stage:
            alone = await run(stage, b"alone", chunks(model))
            await stage.open(b"one", whole(model), 64)
            await stage.open(b"two", whole(model), 64)
            position, beside = 0, []
            for chunk in chunks(model):
                beside.append(await stage.step(b"one", position, chunk))
                await stage.step(b"two", position, (chunk + 1) % model.vocabulary)
                position += len(chunk)
            assert same(beside, alone)

    async def test_step_refuses_another_position_and_changes_nothing(
        self, make_stage: StageFactory
    ) -> None:
        model = make_stage.manifest
        first, second, *_ = chunks(model)
        async with make_stage(whole(model), CACHE_TOKENS) as stage:
            expected = (await run(stage, b"expected", [first, second]))[1]
            await stage.open(b"one", whole(model), 64)
            await stage.step(b"one", 0, first)
            for position in (0, len(first) - 1, len(first) + 1):
                with pytest.raises(ValueError, match="position"):
                    await stage.step(b"one", position, second)
            assert same([await stage.step(b"one", len(first), second)], [expected])

    async def test_step_refuses_chunks_of_another_form(self, make_stage: StageFactory) -> None:
        model = make_stage.manifest
        async with make_stage(whole(model), CACHE_TOKENS) as stage:
            await stage.open(b"front", whole(model), 64)
            await stage.open(b"back", LayerRange(first=1, stop=model.layers), 64)
            outside = np.array([model.vocabulary], np.int32)
            for chunk in (np.zeros((2, model.width), np.float32), outside, -outside, outside[:0]):
                with pytest.raises(ValueError, match=r"."):
                    await stage.step(b"front", 0, chunk)
            for chunk in (np.zeros((2, model.width + 1), np.float32), tokens(model, 2)):
                with pytest.raises(ValueError, match=r"."):
                    await stage.step(b"back", 0, chunk)

    async def test_step_stays_within_the_generation_s_cache(self, make_stage: StageFactory) -> None:
        model = make_stage.manifest
        async with make_stage(whole(model), CACHE_TOKENS) as stage:
            await stage.open(b"one", whole(model), PROMPT)
            with pytest.raises(ValueError, match="cache"):
                await stage.step(b"one", 0, tokens(model, PROMPT + 1))
            await stage.step(b"one", 0, tokens(model, PROMPT))

    async def test_open_refuses_more_than_the_caches_hold(self, make_stage: StageFactory) -> None:
        model = make_stage.manifest
        async with make_stage(whole(model), 64) as stage:
            await stage.open(b"one", whole(model), 40)
            with pytest.raises(CacheFull, match="24"):
                await stage.open(b"two", whole(model), 25)
            await stage.open(b"two", whole(model), 24)
            await stage.close(b"one")
            await stage.open(b"three", whole(model), 40)

    async def test_open_refuses_a_name_twice_and_layers_of_others(
        self, make_stage: StageFactory
    ) -> None:
        model = make_stage.manifest
        async with make_stage(LayerRange(first=0, stop=1), CACHE_TOKENS) as stage:
            await stage.open(b"one", LayerRange(first=0, stop=1), 8)
            with pytest.raises(ValueError, match=r"."):
                await stage.open(b"one", LayerRange(first=0, stop=1), 8)
            with pytest.raises(ValueError, match="layers"):
                await stage.open(b"two", whole(model), 8)

    async def test_close_ends_a_generation_once(self, make_stage: StageFactory) -> None:
        model = make_stage.manifest
        async with make_stage(whole(model), CACHE_TOKENS) as stage:
            await stage.open(b"one", whole(model), 64)
            await stage.close(b"one")
            await stage.close(b"one")
            with pytest.raises(StageLost):
                await stage.step(b"one", 0, tokens(model, 1))


def whole(model: ModelManifest) -> LayerRange:
    return LayerRange(first=0, stop=model.layers)


def tokens(model: ModelManifest, count: int, salt: int = 0) -> np.ndarray:
    """Token ids that depend on the salt, int32 of shape (count,)."""
    source = np.random.default_rng(salt)
    return source.integers(0, model.vocabulary, count).astype(np.int32)


def chunks(model: ModelManifest) -> list[Chunk]:
    """A prompt, then single tokens."""
    return [tokens(model, PROMPT), *(tokens(model, 1, step + 1) for step in range(STEPS))]


async def run(stage: Stage, generation: bytes, given: list[Chunk]) -> list[np.ndarray]:
    """The results of chunks in order, in a generation of all layers of the stage."""
    await stage.open(generation, (await stage.describe()).layers, 64)
    results, position = [], 0
    for chunk in given:
        results.append((await stage.step(generation, position, chunk)).copy())
        position += len(chunk)
    await stage.close(generation)
    return results


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    """Whether both have the same bits."""
    return [part.tobytes() for part in left] == [part.tobytes() for part in right]
