"""Uses trained parameters: writes samples and exports. Worker process only.

The model computes with other memory meanwhile, as in `scorer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from daemon.device.loops.exported_form import as_exported
from daemon.device.loops.scorer import evaluating, same_random_numbers
from daemon.device.messages import ExportModel, SampleModel
from daemon.device.model.author_code import AuthorFault, MemoryShort, SampleFault, author_code
from daemon.device.model.flat_model import FlatModel
from daemon.device.processor import Device
from daemon.device.tasks.description import seed_everything
from daemon.device.tasks.held_out import DataSplit
from daemon.device.tasks.language_task import LanguageTask
from daemon.device.tasks.task import Task
from protocol.errors import UserError
from protocol.generation.sampler import choose_token

# What `torch.save` writes.
TORCH_FILE = "model.pt"


@runtime_checkable
class Pretrained(Protocol):
    """A task whose model `transformers` can load."""

    def save_pretrained(self, model: nn.Module, folder: Path, *, adapter: bool) -> None: ...


class ResultFault(Exception):
    """The task cannot do it. `what` names the file and the line, `trace` may be empty."""

    def __init__(self, what: str, fix: str = "", trace: str = "") -> None:
        super().__init__(what)
        self.what, self.fix, self.trace = what, fix, trace


class ModelResults:
    """Calls a task's methods with parameters that are not those in training."""

    def __init__(
        self, task: Task, device: Device, net: FlatModel, split: DataSplit, seed: int
    ) -> None:
        self._task, self._device, self._net = task, device, net
        self._split, self._seed = split, seed

    def sample(self, parameters: torch.Tensor, wanted: SampleModel) -> tuple[str, ...]:
        """Return texts that continue the prompt, or the predictions for held-out samples.

        `parameters` has shape (parameters,). Raises `ResultFault`.
        """
        with self._model_with(parameters) as model, as_exported(self._task, model):
            if isinstance(self._task, LanguageTask):
                task = self._task
                return tuple(
                    self._continue(task, model, wanted, number) for number in range(wanted.count)
                )
            if wanted.prompt:
                raise ResultFault(
                    "The task predicts samples of its data and takes no prompt",
                    "leave out --prompt",
                )
            return self._predict(model, wanted.count)

    def _continue(
        self, task: LanguageTask, model: nn.Module, wanted: SampleModel, number: int
    ) -> str:
        with author_code("encode()", SampleFault):
            tokens = task.encode(wanted.prompt) or [task.first_token()]
            limit, ends = task.context_tokens(), task.end_tokens()
        first = len(tokens)
        for _ in range(wanted.tokens):
            with author_code("next_logits()", SampleFault):
                recent = torch.tensor(tokens[-limit:], device=self._device.torch)
                logits = task.next_logits(model, recent).to("cpu").numpy().astype(np.float32)
                # The texts of one request draw at different places.
                place = number * wanted.tokens + len(tokens) - first
                token = choose_token(logits, wanted.rules, place)
            if token in ends:
                break
            tokens.append(token)
        with author_code("decode()", SampleFault):
            return wanted.prompt + task.decode(tokens[first:])

    def _predict(self, model: nn.Module, count: int) -> tuple[str, ...]:
        total, held_out = self._split.total, self._split.held_out
        first = total - held_out if held_out else 0
        indices = np.arange(first, min(total, first + count), dtype=np.int64)
        with author_code("batch()", SampleFault):
            batch = [tensor.to(self._device.torch) for tensor in self._task.batch(indices.copy())]
        with author_code("predictions()", SampleFault):
            said = self._task.predictions(model, batch)
        return tuple(
            f"sample {index}: {words}" for index, words in zip(indices, said, strict=False)
        )

    def export(self, parameters: torch.Tensor, wanted: ExportModel) -> tuple[str, ...]:
        """Write the model into `wanted.folder`, an empty folder. Returns the names of the files.

        Raises `ResultFault`, and `UserError` where the task has no such form.
        """
        folder = Path(wanted.folder)
        with self._model_with(parameters) as model:
            if wanted.form == "torch":
                torch.save(state_of(model), folder / TORCH_FILE)
            elif isinstance(self._task, Pretrained):
                with author_code("save_pretrained()", SampleFault):
                    self._task.save_pretrained(model, folder, adapter=wanted.adapter)
            else:
                raise UserError(
                    "EXPORT",
                    "The model of this run has no form that transformers can load.",
                    why="only the task hf_causal_lm has one",
                    fix="use --format torch or --format safetensors",
                    exit_code=2,
                )
        return tuple(sorted(path.name for path in folder.iterdir()))

    @contextmanager
    def _model_with(self, parameters: torch.Tensor) -> Iterator[nn.Module]:
        try:
            with (
                self._net.computing_with(parameters.to(self._device.torch)),
                evaluating(self._net.model),
                same_random_numbers(self._device),
                torch.no_grad(),
                self._device.autocast(),
            ):
                seed_everything(self._seed)
                yield self._net.model
        except (AuthorFault, MemoryShort) as fault:
            raise ResultFault(fault.what, trace=fault.trace) from fault


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the model's `state_dict` on the CPU: each tensor in memory of its own, ties kept."""
    copies: dict[tuple[int, torch.Size], torch.Tensor] = {}
    state: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape)
        if key not in copies or not tensor.numel():
            copies[key] = tensor.detach().to("cpu", copy=True).contiguous()
        state[name] = copies[key]
    return state
