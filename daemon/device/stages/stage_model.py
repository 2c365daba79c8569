"""Computes a range of a model's layers for many generations. Worker process only.

Generations share the weights and nothing else. Each step computes one generation alone, so what
others do at the same time changes no bit of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.blocks.block import Blocks
from daemon.device.stages.blocks.bloom import BloomBlocks
from daemon.device.stages.blocks.byte_gpt import ByteGptBlocks
from daemon.device.stages.blocks.llama import LlamaBlocks
from daemon.device.stages.cache import GenerationCache
from daemon.device.stages.weights.shards import load_shard
from daemon.device.stages.weights.source import WeightSource, shard_name, shards_of
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.inference.layers import LayerRange
from protocol.ports.stage import Activations, Chunk


class StageModel:
    """Some layers of a model, on one device."""

    def __init__(
        self,
        source: WeightSource,
        layers: LayerRange,
        device: torch.device,
        expected: Mapping[str, Digest] | None = None,
    ) -> None:
        """Load the shards that the layers need, and no others.

        Args:
            source: the model.
            layers: a range of its layers.
            device: where to compute.
            expected: the digest of each shard, by name. Without it no digest is checked.

        Raises:
            UserError: "LAYERS" for a range that the model does not have, else as `load_shard`.
        """
        made = source.architecture
        if layers.stop > made.layers:
            raise UserError(
                "LAYERS",
                f"The model has no layers {layers}.",
                why=f"its {made.layers} layers are 0:{made.layers}",
                fix=f"name a range inside 0:{made.layers}",
                exit_code=2,
            )
        self.architecture, self.layers, self._device = made, layers, device
        self._blocks = _blocks(made, device)
        self._shards: dict[int, Mapping[str, Tensor]] = {}
        for shard in shards_of(made, layers):
            wanted = None if expected is None else expected.get(shard_name(made, shard), b"")
            self._shards[shard] = load_shard(source, shard, device, wanted)

    def new_cache(self, layers: LayerRange, limit: int) -> GenerationCache:
        """Return an empty cache for at most `limit` tokens in some of the layers."""
        return GenerationCache(self.architecture, layers, limit, self._device)

    @torch.no_grad()
    def step(self, cache: GenerationCache, chunk: Chunk) -> Activations:
        """Compute the tokens that follow those in the cache. The caller has checked the chunk.

        `chunk` and the result are those of `Stage.step`.
        """
        layers, first = cache.range, cache.tokens
        # A copy: torch's memory is aligned to a cache line, and shared memory may not be.
        given = torch.from_numpy(chunk).to(self._device, copy=True)
        x = self._blocks.embed(self._shards[0], given.long(), first) if layers.first == 0 else given
        for number, layer in enumerate(cache.layers):
            x = self._blocks.layer(self._shards[layers.first + 1 + number], x, layer, first)
        cache.tokens = first + x.shape[0]
        if layers.stop == self.architecture.layers:
            x = self.logits(x[-1:])
        result: Activations = x.to("cpu").numpy()
        return result

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Return the logits after the last layer. shape (time, width) to (time, vocabulary)"""
        made = self.architecture
        head = self._shards[made.layers + 1]
        output = self._shards[0][_WORDS[made.family]] if made.tied else head["lm_head.weight"]
        return self._blocks.logits(head, output, x)


_WORDS = {
    "byte_gpt": "embedding.weight",
    "llama": "embed_tokens.weight",
    "bloom": "word_embeddings.weight",
}


def _blocks(made: Architecture, device: torch.device) -> Blocks:
    match made.family:
        case "byte_gpt":
            return ByteGptBlocks(made, device)
        case "llama":
            return LlamaBlocks(made, device)
        case "bloom":
            return BloomBlocks(made, device)
