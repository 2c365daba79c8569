"""Defines `LanguageTask`, the base of tasks whose model continues a text. Worker process only.

`hypergpud sample` writes text with it (`daemon/device/results/text.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from daemon.device.tasks.task import Task

if TYPE_CHECKING:
    import torch


class LanguageTask(Task):
    """A task whose model predicts the next token of a text."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text. The ids of an empty text may be none."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""

    @abstractmethod
    def next_logits(self, model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits of the token that follows.

        Args:
            model: the model, in eval mode and without gradients.
            tokens: int64 of shape (time,) on the model's device, from 1 to `context_tokens()`.

        Returns:
            float32 of shape (vocabulary,).
        """

    @abstractmethod
    def context_tokens(self) -> int:
        """Return the most tokens that the model takes at once."""

    def first_token(self) -> int:
        """Return the token that a text without a prompt begins with."""
        return 0

    def end_tokens(self) -> frozenset[int]:
        """Return the tokens that end a text."""
        return frozenset()
