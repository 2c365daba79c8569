"""Lets a model compute in the form in which it is exported. Worker process only.

An adapter that is added to the weights gives other logits than one that is computed beside them:
float32 rounds each weight, and each sum in another order. With SmolLM2 the difference is 8e-5 where
the largest logit is 34. Evaluation and samples compute as the export does, so they equal it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

from torch import nn

from daemon.device.tasks.task import Task


@runtime_checkable
class ExportsAnotherForm(Protocol):
    """A task whose exported model computes in another way than the model that it trains."""

    def as_exported(self, model: nn.Module) -> AbstractContextManager[None]: ...


def as_exported(task: Task, model: nn.Module) -> AbstractContextManager[None]:
    """Let the task's model compute inside the block as its export does."""
    return task.as_exported(model) if isinstance(task, ExportsAnotherForm) else nullcontext()
