"""The port of a stage: it computes a contiguous range of a model's layers.

A stage knows tokens, activations and caches. It knows no peers, no attempts and no wire: those
belong to `daemon/services/inference`, which decides which steps reach it. The wire's dtype is the
service's too: chunks come in and go out as float32 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from protocol.inference.layers import LayerRange
from protocol.inference.model import KernelId, ModelManifest

Tokens = npt.NDArray[np.int32]
"""Token ids, shape (tokens,)."""

Activations = npt.NDArray[np.float32]
"""Hidden states of shape (tokens, width), or logits of shape (1, vocabulary)."""

Chunk = Any  # Tokens | Activations
"""What a step brings: `Tokens` for a range from layer 0, else hidden states."""

MAX_CHUNK_TOKENS = 512
"""The most tokens of one chunk: 16 MiB of float32 at a width of 8,192."""


class StageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage reports about itself once its weights are loaded and checked."""

    layers: LayerRange
    kernel: KernelId
    # For a person: "cpu (2 threads)".
    device: str
    # The tokens that all caches together may hold.
    cache_tokens: int
    # Tokens x layers that the stage computes in a second, one token at a time; measured at start.
    layer_tokens_per_s: float


class Stage(Protocol):
    """Computes some layers of a model, and keeps one key-value cache for each open generation.

    Guaranteed: the same chunks in the same order give the same bits, whatever other generations do
    meanwhile, and also in another stage with the same kernel id. A call that raises changes
    nothing, `StageLost` aside. Calls may be made concurrently; the stage puts them in order. A
    cancelled `step` leaves the generation where it was, or one chunk further: close it.

    Not guaranteed: the same bits for the same tokens in other chunks.
    """

    async def describe(self) -> StageInfo:
        """Wait until the weights are loaded; describe the stage.

        Raises:
            UserError: for weights that cannot be loaded, or whose digests do not fit.
            StageLost: when the process died.
        """

    async def open(self, generation: bytes, layers: LayerRange, cache_tokens: int) -> None:
        """Reserve a cache of `cache_tokens` positions, empty, for a generation.

        Args:
            generation: a name of at most 64 bytes that is not open.
            layers: the layers that the steps pass through; all of them are in the stage's range.
            cache_tokens: at least 1, at most the model's context.

        Raises:
            CacheFull: the caches that are open leave too little.
            ValueError: the name is open, or the range or the size is wrong.
            StageLost: when the process died.
        """

    async def step(self, generation: bytes, position: int, chunk: Chunk) -> Activations:
        """Compute one chunk behind the `position` tokens that the cache holds.

        Args:
            generation: an open one.
            position: the number of tokens in the cache.
            chunk: 1 to `MAX_CHUNK_TOKENS` tokens. int32 ids of shape (tokens,) where the
                generation's range begins at layer 0, else float32 of shape (tokens, width).

        Returns:
            float32. Logits of the chunk's last token, shape (1, vocabulary), where the range ends
            at the model's last layer; else hidden states of shape (tokens, width).

        Raises:
            ValueError: the position is another one, the chunk has another shape or type, holds
                ids outside the vocabulary, or does not fit the generation's cache.
            StageLost: the stage holds no such generation, or its process died.
        """

    async def close(self, generation: bytes) -> None:
        """Free the cache of a generation. A generation that is not open is no error."""


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a chat. `role` is "system", "user" or "assistant"."""

    role: str
    content: str


class Tokenizer(Protocol):
    """Text to tokens and back. Pure and synchronous."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without a token before the first one."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids. Bytes that are no text become U+FFFD."""

    def chat(self, messages: Sequence[ChatMessage]) -> str:
        """Return the prompt of a chat, by the model's template.

        Raises:
            ValueError: the model has no template, or the template refuses the messages.
        """


class LocalModel(Protocol):
    """A model whose files are on this machine."""

    @property
    def manifest(self) -> ModelManifest: ...

    def tokenizer(self) -> Tokenizer: ...

    def tokenizer_file(self) -> bytes:
        """Return the tokenizer's file, which `tokenizer_digest` names; b"" where tokens are bytes.

        Clients without the model's files ask a stage for it.
        """

    async def export(self, names: Sequence[str], folder: Path) -> None:
        """Write shards, by their names in the manifest, into a folder under their digests.

        Raises:
            UserError: for shards that this machine does not have, and for a full disk.
        """

    def stage(self, layers: LayerRange, cache_tokens: int) -> AbstractAsyncContextManager[Stage]:
        """Start a process that loads these layers, and end it on exit.

        The block begins at once: `describe` waits for the weights.

        Args:
            layers: a range of the model's layers.
            cache_tokens: the positions that all caches together may hold.
        """


class CacheFull(Exception):
    """The caches that are open leave too little. The message has the numbers."""


class StageLost(Exception):
    """The stage holds no such generation: it was never opened, was closed, or its process died.

    After a death the process starts again, without caches. The message says why, in one sentence.
    """
