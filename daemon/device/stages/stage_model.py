"""Computes a range of a model's layers for many generations. Worker process only.

Generations share the weights and nothing else. Each step computes one generation alone, so what
others do at the same time changes no bit of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from daemon.device.stages.architecture import Architecture
from daemon.device.stages.blocks.block import Blocks
from daemon.device.stages.blocks.bloom import BloomBlocks
from daemon.device.stages.blocks.byte_gpt import ByteGptBlocks
from daemon.device.stages.blocks.llama import LlamaBlocks
from daemon.device.stages.cache import GenerationCache
from daemon.device.stages.weights.shards import load_shard
from daemon.device.stages.weights.source import WeightSource, shards_of
from protocol.digest import Digest
from protocol.errors import UserError


class StageModel:
    """The layers `[start, stop)` of a model, on one device."""

    def __init__(
        self,
        source: WeightSource,
        start: int,
        stop: int,
        device: torch.device,
        expected: Mapping[int, Digest] | None = None,
    ) -> None:
        """Load the shards of the range, and no others.

        Args:
            source: the model.
            start: the first layer, from 0.
            stop: the layer after the last one.
            device: where to compute.
            expected: the digest of each shard. Without it no digest is checked.

        Raises:
            UserError: "LAYERS" for a range that the model does not have, "MODEL" as `load_shard`.
        """
        made = source.architecture
        if not 0 <= start < stop <= made.layers:
            raise UserError(
                "LAYERS",
                f"The model has no layers {start}:{stop}.",
                why=f"its {made.layers} layers are 0:{made.layers}",
                fix=f"name a range inside 0:{made.layers}",
                exit_code=2,
            )
        self.architecture, self.start, self.stop = made, start, stop
        self.is_first, self.is_last = start == 0, stop == made.layers
        self._device = device
        self._blocks = _blocks(made, device)
        self._shards: dict[int, Mapping[str, Tensor]] = {}
        self.digests: dict[int, Digest] = {}
        for shard in shards_of(made, start, stop):
            tensors, found = load_shard(
                source, shard, device, None if expected is None else expected[shard]
            )
            self._shards[shard], self.digests[shard] = tensors, found

    @property
    def cache_bytes_per_token(self) -> int:
        """What one token of a generation takes in this stage's caches."""
        return 4 * self.architecture.cache_floats * (self.stop - self.start)

    def new_cache(self, limit: int) -> GenerationCache:
        """Return an empty cache for at most `limit` tokens."""
        return GenerationCache(self.architecture, self.stop - self.start, limit, self._device)

    @torch.no_grad()
    def embed(self, tokens: Sequence[int], first: int) -> Tensor:
        """Return the hidden states of token ids before the first layer. shape (time, width)"""
        ids = torch.tensor(tokens, dtype=torch.int64, device=self._device)
        return self._blocks.embed(self._shards[0], ids, first)

    @torch.no_grad()
    def advance(self, cache: GenerationCache, x: Tensor) -> Tensor:
        """Compute the layers for the tokens that follow those in the cache.

        `x` has shape (time, width), as the result. The caller checks the cache's limit.
        """
        first = cache.tokens
        for number, layer in enumerate(cache.layers):
            x = self._blocks.layer(self._shards[self.start + 1 + number], x, layer, first)
        cache.tokens = first + x.shape[0]
        return x

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
