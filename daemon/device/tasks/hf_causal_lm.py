"""The task "hf_causal_lm": trains or fine-tunes a causal language model of Hugging Face's format.

It needs the extra "hf". The model is a local folder, or one that `hypergpud model fetch` knows. The
tensors of the model that is not trained are part of the task's digest, so all members have the same
base model. With LoRA, only the adapter is the run's vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from daemon.device.pretrained.adapters import (
    add_adapter,
    computing_merged,
    is_adapted,
    merged,
    save_adapter,
)
from daemon.device.pretrained.causal_models import (
    context_limit,
    load_model,
    load_tokenizer,
    save_model,
)
from daemon.device.tasks.documents import DOCSTRINGS, load_documents
from daemon.device.tasks.files import allowed_path
from daemon.device.tasks.language_task import LanguageTask
from daemon.device.tasks.task import GIVEN, ZEROS, Batch, Init, TaskOptions
from daemon.models.known_models import KNOWN, fetched_folder
from protocol.errors import UserError


class HfCausalLmOptions(TaskOptions, frozen=True, kw_only=True):
    """The options of "hf_causal_lm".

    `model` is "smollm2", or a folder inside the node's data folders. `train` is "lora" or "full".
    `targets` are the ends of the names of the layers that get an adapter, separated by commas, or
    "all-linear". `text` is "docstrings", or a file or folder inside the data folders. `text_bytes`
    limits its size; 0 means the default limit. A sample is a window of `context` tokens.
    """

    model: str = "smollm2"
    train: Literal["lora", "full"] = "lora"
    rank: Annotated[int, Meta(ge=1, le=1024)] = 8
    alpha: Annotated[float, Meta(gt=0)] = 16.0
    targets: str = "q_proj,v_proj"
    text: str = DOCSTRINGS
    field: str = "text"
    text_bytes: Annotated[int, Meta(ge=0)] = 0
    context: Annotated[int, Meta(ge=2, le=1 << 20)] = 128
    # Scoring a window takes a third of a step's time for it: seconds on a CPU.
    held_out: Annotated[int, Meta(ge=0, le=1 << 20)] = 128
    private: bool = False


class HfCausalLm(LanguageTask):
    """Predicts the next token. A sample is a window of `context` tokens; windows do not overlap."""

    Options = HfCausalLmOptions

    def __init__(self, options: HfCausalLmOptions, data_folders: tuple[str, ...] = ()) -> None:
        super().__init__(options, data_folders)
        # Versions of Python differ in their docstrings.
        if options.private or options.text == DOCSTRINGS:
            self.data = "private"
        self._folder = (
            fetched_folder(options.model)
            if options.model in KNOWN
            else allowed_path(options.model, data_folders)
        )
        self._tokenizer = load_tokenizer(self._folder)
        self._limit = options.context
        documents = load_documents(
            options.text,
            data_folders,
            field=options.field,
            limit=options.text_bytes,
            conversation=self._tokenizer.conversation,
        )
        ids: list[int] = []
        for document in self._tokenizer.encode_all(documents):
            ids += document
            ids.append(self._tokenizer.end)
        self._tokens = np.asarray(ids, np.int64)
        if self._tokens.size <= options.context:
            raise UserError(
                "DATA",
                f"The text {options.text!r} has {self._tokens.size} tokens; the task needs more"
                f" than its context of {options.context}.",
                exit_code=2,
            )
        self._window = np.arange(options.context + 1)

    def model(self) -> nn.Module:
        model = load_model(self._folder)
        self._limit = context_limit(model)
        if self.options.context > self._limit:
            raise UserError(
                "TASK_OPTIONS",
                f"The option context is {self.options.context}, and the model takes at most"
                f" {self._limit} tokens.",
                fix=f"set context = {self._limit} or less",
                exit_code=2,
            )
        if self.options.train == "lora":
            targets = [part.strip() for part in self.options.targets.split(",") if part.strip()]
            model = add_adapter(
                model, rank=self.options.rank, alpha=self.options.alpha, targets=targets
            )
        return model.train()

    def dataset_size(self) -> int:
        context: int = self.options.context
        return (self._tokens.size - 1) // context

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        """Return one tensor of shape (count, context + 1).

        The inputs are all but the last column, the targets all but the first.
        """
        places = indices[:, None] * self.options.context + self._window
        return (torch.from_numpy(self._tokens[places]),)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        (window,) = batch
        logits = model(input_ids=window[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), window[:, 1:].flatten())

    def held_out_size(self) -> int:
        most: int = self.options.held_out
        return min(most, super().held_out_size())

    def held_out_gap(self) -> int:
        """Return 1: the last token that a window predicts is the first one of the next window."""
        return 1

    def init(self, name: str, shape: tuple[int, ...]) -> Init:
        if self.options.train == "full":
            return GIVEN
        # The adapter begins as no change: https://arxiv.org/abs/2106.09685, section 4.1.
        return ZEROS if ".lora_B." in name else super().init(name, shape)

    # ------------------------------------------------------------------------------------ results

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens)

    def next_logits(self, model: nn.Module, tokens: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=tokens[None], use_cache=False).logits[0, -1]
        return logits.float()

    def context_tokens(self) -> int:
        return self._limit

    def first_token(self) -> int:
        return self._tokenizer.end

    def end_tokens(self) -> frozenset[int]:
        return frozenset({self._tokenizer.end})

    def as_exported(self, model: nn.Module) -> AbstractContextManager[None]:
        """Let the model compute with its adapter merged, as `save_pretrained` writes it."""
        return computing_merged(model) if is_adapted(model) else nullcontext()

    def save_pretrained(self, model: nn.Module, folder: Path, *, adapter: bool) -> None:
        """Write the model for `from_pretrained`: merged with its adapter, or the adapter alone."""
        if adapter and not is_adapted(model):
            raise UserError(
                "EXPORT",
                "This run trains the whole model, so there is no adapter to export.",
                fix="leave out --adapter",
                exit_code=2,
            )
        if adapter:
            save_adapter(model, folder)
        else:
            save_model(merged(model) if is_adapted(model) else model, folder)
        self._tokenizer.save(folder)
