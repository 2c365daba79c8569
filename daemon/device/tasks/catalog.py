"""Finds the task that a manifest names.

The shipped tasks have names. Other tasks are written `module:Class`, and need the permission of the
machine's owner.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping

import msgspec

from daemon.device.model.author_code import TaskFault, author_code, trace_of, what_failed
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.task import Task, TaskOptions
from protocol.errors import UserError
from protocol.text.nearest import nearest

SHIPPED = {
    "byte_gpt": ("daemon.device.tasks.byte_gpt", "ByteGpt"),
    "hf_causal_lm": ("daemon.device.tasks.hf_causal_lm", "HfCausalLm"),
    "simple_cnn": ("daemon.device.tasks.simple_cnn", "SimpleCnn"),
    "torch_module": ("daemon.device.tasks.torch_module", "TorchModule"),
}
# The shipped tasks that run code of this machine, which its owner must allow.
RUNS_CODE = frozenset({"torch_module"})
# The shipped tasks that need an extra of this package.
EXTRAS = {"hf_causal_lm": "hf"}

OptionValues = Mapping[str, int | float | str | bool]


def locate(name: str, settings: WorkerSettings) -> tuple[str, str]:
    """Return the module and the class of a task. Imports nothing.

    Raises `UserError("TASK")` for unknown and for forbidden names.
    """
    if name in SHIPPED and name not in RUNS_CODE:
        return SHIPPED[name]
    if name not in SHIPPED:
        _check_written(name)
    if not settings.allow_custom_task:
        raise UserError(
            "TASK_NOT_ALLOWED",
            f"This run executes {name!r}, code on this machine that you have not allowed.",
            why="a run's file can come from somebody else, so only HyperGPU's own tasks run without"
            " your permission",
            fix="to allow it for this start, add --allow-custom-task; for every start, set"
            " allow_custom_task = true under [worker] in the home's config.toml",
            exit_code=2,
        )
    if name in SHIPPED:
        return SHIPPED[name]
    module, _, attribute = name.partition(":")
    return module, attribute


def _check_written(name: str) -> None:
    module, colon, attribute = name.partition(":")
    if not colon:
        meant = nearest(name, SHIPPED)
        raise UserError(
            "TASK",
            f"There is no task called {name!r}.",
            why=f"the shipped tasks are {', '.join(SHIPPED)}; your own is written module:Class",
            fix=f"did you mean {meant!r}?" if meant else "",
            exit_code=2,
        )
    if not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise UserError(
            "TASK", f"{name!r} is not a task's name.", why="it is written module:Class", exit_code=2
        )


def make_options(task: type[Task], name: str, values: OptionValues) -> TaskOptions:
    """Convert the manifest's options to the task's options.

    Raises `UserError("TASK_OPTIONS")` with the nearest known key.
    """
    try:
        return msgspec.convert(dict(values), task.Options)
    except (msgspec.ValidationError, ValueError) as error:
        known = [field.name for field in msgspec.structs.fields(task.Options)]
        unknown = [key for key in values if key not in known]
        meant = nearest(unknown[0], known) if unknown else ""
        raise UserError(
            "TASK_OPTIONS",
            f"The options of task {name!r} are not right.",
            why=f"{error}; it knows {', '.join(known) or 'none'}",
            fix=f"did you mean {meant!r}?" if meant else "",
            exit_code=2,
        ) from None


def load_task(name: str, values: OptionValues, settings: WorkerSettings) -> Task:
    """Import and make the task, in the worker process.

    Raises `UserError` for an error in the manifest, and `TaskFault` where the module fails.
    """
    module_name, attribute = locate(name, settings)
    if name not in SHIPPED or name in RUNS_CODE:
        # At the end, so that a file in a data folder cannot replace one of our modules.
        sys.path.append(os.getcwd())
    try:
        with author_code(f"import {module_name}", passing=(ModuleNotFoundError,)):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if name in EXTRAS:
            raise UserError(
                "EXTRA",
                f"The task {name!r} needs packages that are not installed.",
                why=str(error),
                fix=f"pip install 'hypergpu[{EXTRAS[name]}]'",
                exit_code=2,
            ) from None
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            # The module exists, but one of its imports does not. The traceback says which.
            raise TaskFault(
                what_failed(f"import {module_name}", error),
                fix=f"install {error.name} in this environment, or put it beside the task's module",
                trace=trace_of(error),
            ) from error
        raise UserError(
            "TASK",
            f"There is no module {module_name!r} for the task {name!r}.",
            why=str(error),
            fix=f"put it in {os.getcwd()}, where the node was started, or install it in this"
            " environment",
            exit_code=2,
        ) from None
    if not hasattr(module, attribute):
        raise UserError(
            "TASK",
            f"There is no task {name!r}.",
            why=f"{module.__file__} defines no {attribute}",
            fix="write the name of one of its classes behind the colon",
            exit_code=2,
        )
    found = getattr(module, attribute)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(
            "TASK",
            f"{name!r} is not a Task.",
            why=f"{attribute} in {module.__file__} is {found!r}",
            fix="derive it from hypergpu.Task",
            exit_code=2,
        )
    options = make_options(found, name, values)
    with author_code("__init__()"):
        return found(options, settings.data_folders)
