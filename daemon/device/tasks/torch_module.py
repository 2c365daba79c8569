"""The task "torch_module": trains any `nn.Module`, without a class of ours.

The model, the data set and the loss are named by import path. The task runs code of this machine,
so the machine's owner must allow it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.utils.data import TensorDataset, default_collate

from daemon.device.model.author_code import author_code
from daemon.device.tasks.task import GIVEN, Batch, Init, Task, TaskOptions
from protocol.errors import UserError


class TorchModuleOptions(TaskOptions, frozen=True, kw_only=True):
    """The options of "torch_module".

    `model`, `dataset` and `loss` are import paths such as "my_module:Net". The first two are
    called with the arguments in `model_arguments` and `dataset_arguments`, which are JSON objects.

    A data set has `len()` and gives samples by index, or is a tuple of tensors. The last tensor of
    a sample is the target: the loss is called with the model's output and the target. Without a
    `loss`, the model is called with all tensors of the batch, and returns the loss.

    `initial` says where training begins: "seed" means values from the run's seed, "model" the
    values that the model has when it is made.
    """

    model: str
    dataset: str
    loss: str = ""
    model_arguments: str = "{}"
    dataset_arguments: str = "{}"
    initial: Literal["seed", "model"] = "seed"
    private: bool = False


class TorchModule(Task):
    """Trains the module that the options name."""

    Options = TorchModuleOptions

    def __init__(self, options: TorchModuleOptions, data_folders: tuple[str, ...] = ()) -> None:
        super().__init__(options, data_folders)
        if options.private:
            self.data = "private"
        self._make_model = imported(options.model, "model")
        self._arguments = arguments(options.model_arguments, "model_arguments")
        self._loss = _loss_of(options.loss)
        make_dataset = imported(options.dataset, "dataset")
        given = arguments(options.dataset_arguments, "dataset_arguments")
        with author_code(f"{options.dataset}()"):
            found = make_dataset(**given) if callable(make_dataset) else make_dataset
        if isinstance(found, Sequence) and found and all(isinstance(t, Tensor) for t in found):
            found = TensorDataset(*found)
        self._dataset: Any = found

    def source_modules(self) -> tuple[str, ...]:
        paths = (self.options.model, self.options.dataset, self.options.loss)
        return tuple(dict.fromkeys(path.partition(":")[0] for path in paths if path))

    def model(self) -> nn.Module:
        model: nn.Module = self._make_model(**self._arguments)
        return model

    def dataset_size(self) -> int:
        return len(self._dataset)

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        parts = default_collate([self._dataset[int(index)] for index in indices])
        if isinstance(parts, Tensor):
            return (parts,)
        return tuple(parts.values()) if isinstance(parts, Mapping) else tuple(parts)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if self._loss is None:
            found = model(*batch)
            loss: Tensor = found if isinstance(found, Tensor) else found.loss
            return loss
        *inputs, target = batch
        result: Tensor = self._loss(model(*inputs), target)
        return result

    def init(self, name: str, shape: tuple[int, ...]) -> Init:
        return GIVEN if self.options.initial == "model" else super().init(name, shape)


def imported(path: str, option: str) -> Any:
    """Return what an import path names. Raises `UserError("TASK_OPTIONS")`, and `TaskFault`."""
    module_name, colon, names = path.partition(":")
    if not colon or not all(
        part.isidentifier() for part in [*module_name.split("."), *names.split(".")]
    ):
        raise _no_object(option, path, "it is written module:name", "")
    try:
        with author_code(f"import {module_name}", passing=(ModuleNotFoundError,)):
            found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _no_object(
            option, path, str(error), "start the node in the folder that holds the module"
        ) from None
    for name in names.split("."):
        if not hasattr(found, name):
            raise _no_object(option, path, f"{module_name} has no {names}", "")
        found = getattr(found, name)
    return found


def arguments(text: str, option: str) -> dict[str, Any]:
    """Return the arguments in a JSON object. Raises `UserError("TASK_OPTIONS")`."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UserError(
            "TASK_OPTIONS",
            f"The option {option} is not a JSON object.",
            why=str(error),
            fix=f"{option} = '{{\"width\": 64}}'",
            exit_code=2,
        ) from None


def _loss_of(path: str) -> Any:
    """Return what computes the loss: a function, or an instance of a module's class; or None."""
    if not path:
        return None
    found = imported(path, "loss")
    with author_code(f"{path}()"):
        return found() if isinstance(found, type) and issubclass(found, nn.Module) else found


def _no_object(option: str, path: str, why: str, fix: str) -> UserError:
    return UserError(
        "TASK_OPTIONS",
        f"The option {option} names nothing that can be imported: {path!r}.",
        why=why,
        fix=fix or f'{option} = "my_module:name"',
        exit_code=2,
    )
