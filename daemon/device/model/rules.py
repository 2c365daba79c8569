"""Checks that a model can be trained in a swarm. Worker process only.

Each refusal names the tensor, and says what to use instead.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from protocol.errors import UserError


def refuse(why: str, fix: str) -> UserError:
    """Return the error for a model that breaks a rule."""
    return UserError(
        "TASK", "The task's model cannot be trained in a swarm.", why=why, fix=fix, exit_code=2
    )


def check_model(model: object) -> None:
    """Raise `UserError("TASK")` for a model that cannot be one flat vector of float32 parameters.

    The model may have no state besides its parameters.
    """
    if not isinstance(model, nn.Module):
        raise refuse(
            f"model() returned a {type(model).__name__}",
            "return a torch.nn.Module (does model() lack a return?)",
        )
    for name, module in model.named_modules():
        if _tracks(module) and module.momentum is None:
            raise refuse(
                f"{name or 'it'} is a {type(module).__name__} with momentum=None: its statistics"
                " count the batches of one node, and cannot be averaged",
                "give it a momentum, as in BatchNorm2d(channels, momentum=0.1), or keep the layer"
                " in eval mode",
            )
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if is_lazy(tensor):
            raise refuse(
                f"{name} has no shape yet: its module is lazy",
                "call the model once on a sample in model(), or use the module with its sizes",
            )
        if tensor.is_meta:
            raise refuse(
                f"{name} is on the meta device, without values", "make the model on the CPU"
            )
    trained = [
        (name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad
    ]
    for name, statistic in running_statistics(model):
        if statistic.dtype != torch.float32:
            raise refuse(f"the buffer {name} is {statistic.dtype}", "keep BatchNorm float32")
    for name, parameter in trained:
        if parameter.dtype != torch.float32:
            raise refuse(
                f"the parameter {name} is {parameter.dtype}",
                "make parameters float32; the precision setting chooses the arithmetic. A frozen"
                " one (requires_grad = False) may have any type",
            )
    if not any(parameter.numel() for _, parameter in trained):
        raise refuse(
            "it has no parameters that require a gradient",
            "return a module with such parameters from model()",
        )
    _check_memory(model, {name for name, _ in trained})


def _tracks(module: nn.Module) -> bool:
    """Return whether a module changes running statistics in training."""
    return (
        isinstance(module, nn.modules.batchnorm._NormBase)
        and bool(module.track_running_stats)
        and module.running_mean is not None
        and module.training
    )


def running_statistics(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the running means and variances that training changes, with their names."""
    for name, module in model.named_modules():
        if _tracks(module):
            for own in ("running_mean", "running_var"):
                yield f"{name}.{own}" if name else own, getattr(module, own)


def batch_counts(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the counters of batches beside `running_statistics`, which nothing uses."""
    for module in model.modules():
        count = getattr(module, "num_batches_tracked", None)
        if _tracks(module) and isinstance(count, torch.Tensor):
            yield count


def _check_memory(model: nn.Module, trained: set[str]) -> None:
    """Refuse two tensors that share memory: in the flat vector they would train apart."""
    owners: dict[int, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.numel():
            continue
        where = tensor.untyped_storage().data_ptr()
        other = owners.setdefault(where, name)
        if other != name and (name in trained or other in trained):
            raise refuse(
                f"{other} and {name} share their memory and are two tensors",
                "tie parameters by using one nn.Parameter in both places, as in"
                " self.head.weight = self.embedding.weight",
            )
