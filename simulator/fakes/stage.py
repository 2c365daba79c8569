"""`FakeStage`: a small recurrent model in numpy that `ports.Stage` promises, in virtual time.

Each layer mixes a token's state with all earlier ones, so a lost or repeated position changes
everything behind it. As in a real stage, the last bits depend on the chunk's shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trio

from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.ports.stage import (
    MAX_CHUNK_TOKENS,
    Activations,
    CacheFull,
    Chunk,
    StageInfo,
    StageLost,
)

KERNEL = "fake 1"
# What each further token of a chunk changes. A real decode differs from a prefill by about 1e-6.
SHAPE_NOISE = np.float32(2e-7)

FAKE_MODEL = ModelManifest(
    name="fake", architecture="fake", layers=6, width=8, vocabulary=256, context=4096
)


class _Cache:
    """What one generation keeps: the state of each layer, and how many tokens it has seen."""

    def __init__(self, layers: LayerRange, tokens: int, width: int) -> None:
        self.layers, self.limit, self.tokens = layers, tokens, 0
        # shape: (layers, width)
        self.state = np.zeros((len(layers), width), np.float32)


class FakeStage:
    """A stage of `model` whose weights follow from the seed 0. Satisfies `Stage`.

    `layer_s` is the time of one token in one layer. `fault` changes what a chunk returns, for tests
    of a stage that lies.
    """

    def __init__(
        self,
        layers: LayerRange,
        cache_tokens: int,
        *,
        model: ModelManifest = FAKE_MODEL,
        kernel: str = KERNEL,
        layer_s: float = 0.0,
        fault: Callable[[Activations], Activations] = lambda result: result,
    ) -> None:
        self._model, self._fault, self.layer_s = model, fault, layer_s
        source, width = np.random.default_rng(0), model.width
        self._embedding = source.standard_normal((model.vocabulary, width)).astype(np.float32)
        scale = np.float32(1 / np.sqrt(width))
        # shape: (layers, width, width)
        self._weights = (
            source.standard_normal((model.layers, width, width)).astype(np.float32) * scale
        )
        self._info = StageInfo(
            layers=layers,
            kernel=kernel,
            device="fake",
            cache_tokens=cache_tokens,
            layer_tokens_per_s=1 / layer_s if layer_s else 1e6,
        )
        self._caches: dict[bytes, _Cache] = {}
        self._turn = trio.Lock()
        self.steps = 0

    @property
    def layers(self) -> LayerRange:
        return self._info.layers

    def change_results(self, fault: Callable[[Activations], Activations]) -> None:
        """Change what each chunk returns from now on."""
        self._fault = fault

    @property
    def open_generations(self) -> int:
        return len(self._caches)

    def restart(self) -> None:
        """Lose every cache, as the death of the process does."""
        self._caches.clear()

    async def describe(self) -> StageInfo:
        await trio.lowlevel.checkpoint()
        return self._info

    async def open(self, generation: bytes, layers: LayerRange, cache_tokens: int) -> None:
        await trio.lowlevel.checkpoint()
        if generation in self._caches or not 0 < len(generation) <= 64:
            raise ValueError("the generation's name is open, or has not 1 to 64 bytes")
        if not self._info.layers.contains(layers):
            raise ValueError(f"layers {layers} are outside {self._info.layers}")
        if not 1 <= cache_tokens <= self._model.context:
            raise ValueError(f"a cache of {cache_tokens} tokens")
        free = self._info.cache_tokens - sum(cache.limit for cache in self._caches.values())
        if cache_tokens > free:
            raise CacheFull(f"{cache_tokens} tokens are asked for, {free} are free")
        self._caches[generation] = _Cache(layers, cache_tokens, self._model.width)

    async def step(self, generation: bytes, position: int, chunk: Chunk) -> Activations:
        async with self._turn:
            cache = self._cache(generation)
            self._check(cache, position, chunk)
            await trio.sleep(self.layer_s * len(chunk) * len(cache.layers))
            # The time of a step is long enough for the process to die in it.
            cache = self._cache(generation)
            hidden = self._embedding[chunk] if cache.layers.first == 0 else chunk
            hidden = hidden.astype(np.float32)
            for index, layer in enumerate(range(cache.layers.first, cache.layers.stop)):
                hidden = self._layer(layer, cache.state[index], hidden)
            cache.tokens += len(chunk)
            self.steps += 1
            if cache.layers.stop == self._model.layers:
                hidden = hidden[-1:] @ self._embedding.T
            return self._fault(hidden)

    async def close(self, generation: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self._caches.pop(generation, None)

    def _cache(self, generation: bytes) -> _Cache:
        cache = self._caches.get(generation)
        if cache is None:
            raise StageLost("the stage holds no such generation")
        return cache

    def _check(self, cache: _Cache, position: int, chunk: Chunk) -> None:
        first = cache.layers.first == 0
        shape = chunk.shape[1:]
        if position != cache.tokens:
            raise ValueError(f"position {position} where {cache.tokens} follows")
        if chunk.dtype != (np.int32 if first else np.float32) or shape != (
            () if first else (self._model.width,)
        ):
            raise ValueError(f"a chunk of {chunk.dtype} with shape {chunk.shape}")
        if not 1 <= len(chunk) <= MAX_CHUNK_TOKENS:
            raise ValueError(f"a chunk of {len(chunk)} tokens")
        if cache.tokens + len(chunk) > cache.limit:
            raise ValueError(f"{cache.tokens} + {len(chunk)} tokens in a cache of {cache.limit}")
        if first and not bool(((chunk >= 0) & (chunk < self._model.vocabulary)).all()):
            raise ValueError("a token outside the vocabulary")

    def _layer(self, layer: int, state: Activations, hidden: Activations) -> Activations:
        noise, result = SHAPE_NOISE * np.float32(len(hidden) - 1), np.empty_like(hidden)
        for place, row in enumerate(hidden):
            state *= np.float32(0.5)
            state += row
            result[place] = row + np.tanh(self._weights[layer] @ state) + noise
        return result
