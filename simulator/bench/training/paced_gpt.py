"""The benchmark's task: "byte_gpt" at a stated pace.

A step computes the loss and all gradients, then sleeps until its deadline. So a peer trains as fast
as a device that takes `step_s` for a step, and several peers fit on a machine with few cores. Every
arm takes its steps from here. What a system does besides (its optimizer, its exchange, its pauses)
takes the time that it takes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from daemon.device.tasks.byte_gpt import ByteGpt, ByteGptOptions
from daemon.device.tasks.task import Batch
from simulator.bench.training.step_log import StepLog, StepRecord

HELD_OUT = 256
"""The windows at the end of the corpus that no arm trains on: 16,384 predictions at a context of
64, which two models share, so that differences of 0.2% show."""


class PacedGptOptions(ByteGptOptions, frozen=True, kw_only=True):
    """The options of the paced task. `records` is the folder for the peers' step logs."""

    step_s: Annotated[float, Meta(gt=0)] = 0.2
    records: str = ""


class PacedByteGpt(ByteGpt):
    """A byte GPT whose steps take at least `step_s`."""

    Options = PacedGptOptions

    def __init__(self, options: PacedGptOptions, data_folders: tuple[str, ...] = ()) -> None:
        super().__init__(options, data_folders)
        self._log = StepLog(Path(options.records)) if options.records else None

    def dataset_size(self) -> int:
        return super().dataset_size() - HELD_OUT

    def held_out_windows(self) -> range:
        """The indices of the windows that no arm trains on."""
        return range(self.dataset_size(), super().dataset_size())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss. With gradients wanted, this is a whole paced step."""
        if not torch.is_grad_enabled():
            return super().loss(model, batch)
        began_s = time.monotonic()
        parameters = [one for one in model.parameters() if one.requires_grad]
        loss = super().loss(model, batch)
        gradients = torch.autograd.grad(loss, parameters)
        computed_s = time.monotonic()
        deadline_s = began_s + self.options.step_s
        time.sleep(max(0.0, deadline_s - computed_s))
        if self._log is not None:
            self._log.add(
                StepRecord(began_s=began_s, ended_s=time.monotonic(), late=computed_s > deadline_s)
            )
        result: Tensor = _Computed.apply(  # type: ignore[no-untyped-call]
            loss.detach(), gradients, *parameters
        )
        return result


class _Computed(torch.autograd.Function):
    """A loss whose gradients exist already: `backward` gives them to the parameters."""

    @staticmethod
    def forward(
        context: Any, loss: Tensor, gradients: tuple[Tensor, ...], *parameters: Tensor
    ) -> Tensor:
        context.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(context: Any, *outer: Any) -> tuple[Tensor | None, ...]:
        (scale,) = outer
        return (None, None, *(gradient * scale for gradient in context.gradients))
