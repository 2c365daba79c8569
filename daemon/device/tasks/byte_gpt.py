"""The task "byte_gpt": a decoder-only transformer over bytes, which needs no download.

It has GPT-2's shape without its tokenizer, and 256 symbols.

Pre-norm blocks, learned positions, the embedding tied to the output
(https://arxiv.org/abs/1608.05859), which for byte models saves little and for small vectors on home
uplinks still counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from daemon.device.tasks.corpus import load_corpus
from daemon.device.tasks.language_task import LanguageTask
from daemon.device.tasks.task import Batch, Init, TaskOptions, uniform
from protocol.digest import digest
from protocol.errors import UserError

SYMBOLS = 256
# GPT-2's value. With the tied output, the first loss is ln 256 = 5.55.
EMBEDDING_STD = 0.02


class ByteGptOptions(TaskOptions, frozen=True, kw_only=True):
    """The options of "byte_gpt".

    `corpus` is "stdlib" or a path inside the node's data folders. `corpus_bytes` limits its size;
    0 means the default limit. `private` says that every node has files of its own. The standard
    library counts as private, because it differs between versions of Python.
    """

    layers: Annotated[int, Meta(ge=1, le=256)] = 4
    heads: Annotated[int, Meta(ge=1, le=256)] = 4
    width: Annotated[int, Meta(ge=8, le=16384)] = 128
    context: Annotated[int, Meta(ge=2, le=65536)] = 128
    corpus: str = "stdlib"
    corpus_bytes: Annotated[int, Meta(ge=0)] = 0
    private: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")


class TransformerBlock(nn.Module):
    """Attention, then a perceptron, each with a residual connection.

    (batch, time, width) to the same.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.perceptron_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, time, 3, self.heads, width // self.heads)
        # shape of each: (batch, heads, time, width / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = (
            F.scaled_dot_product_attention(q, k, v, is_causal=True)
            .transpose(1, 2)
            .reshape(batch, time, width)
        )
        x = x + self.attention_out(mixed)
        widened = F.gelu(self.up(self.perceptron_norm(x)), approximate="tanh")
        result: Tensor = x + self.down(widened)
        return result


class Gpt(nn.Module):
    """Maps bytes, int64 of shape (batch, time), to logits of shape (batch, time, 256)."""

    def __init__(self, options: ByteGptOptions) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, options.width)
        self.position = nn.Embedding(options.context, options.width)
        self.blocks = nn.ModuleList(
            TransformerBlock(options.width, options.heads) for _ in range(options.layers)
        )
        self.norm = nn.LayerNorm(options.width)

    def forward(self, text: Tensor) -> Tensor:
        x = self.embedding(text) + self.position.weight[: text.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embedding.weight)


class ByteGpt(LanguageTask):
    """Predicts the next byte. A sample is a window of `context` bytes; windows do not overlap."""

    Options = ByteGptOptions

    def __init__(self, options: ByteGptOptions, data_folders: tuple[str, ...] = ()) -> None:
        super().__init__(options, data_folders)
        if options.private or options.corpus == "stdlib":
            self.data = "private"
        self.text = load_corpus(options.corpus, data_folders, options.corpus_bytes)
        if options.corpus == "stdlib" and not options.private:
            # Equal for equal versions of Python. Nodes of other versions train on, unaudited.
            self.data_version = digest(b"hypergpu/stdlib/1\0", self.text.data)
        if self.text.size <= options.context:
            raise UserError(
                "DATA",
                f"The corpus {options.corpus!r} has {self.text.size} bytes, the task needs more"
                f" than its context of {options.context}.",
                exit_code=2,
            )
        self._window = np.arange(options.context + 1)

    def model(self) -> nn.Module:
        return Gpt(self.options)

    def dataset_size(self) -> int:
        context: int = self.options.context
        return (self.text.size - 1) // context

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        """Return one tensor of shape (count, context + 1).

        The inputs are all but the last column, the targets all but the first.
        """
        return (
            torch.from_numpy(
                self.text[indices[:, None] * self.options.context + self._window].astype(np.int64)
            ),
        )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        (window,) = batch
        return F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())

    def held_out_gap(self) -> int:
        """Return 1: the last byte that a window predicts is the first one of the next window."""
        return 1

    def init(self, name: str, shape: tuple[int, ...]) -> Init:
        if name.startswith(("embedding", "position")):
            return uniform(EMBEDDING_STD * sqrt(3))
        usual = super().init(name, shape)
        if name.endswith(("attention_out.weight", "down.weight")):
            # As in GPT-2, the more layers add to the residual stream, the smaller they start.
            return uniform(usual.bound / sqrt(2 * self.options.layers))
        return usual

    # ------------------------------------------------------------------------------------ results

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogatepass"))

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")

    def next_logits(self, model: nn.Module, tokens: Tensor) -> Tensor:
        logits: Tensor = model(tokens[None])[0, -1]
        return logits.float()

    def context_tokens(self) -> int:
        context: int = self.options.context
        return context

    def first_token(self) -> int:
        """Return a line break, after which a line of source begins."""
        return ord("\n")
