"""The options of commands that use a model of a run: which one, and what the worker may do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from daemon.cli.invocation import Invocation
from daemon.config.loader import load_config
from daemon.config.settings import Config

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--certificate",),
        {"metavar": "N|HASH", "help": "The model of this certificate. Default: the newest one."},
    ),
    (
        ("--join",),
        {
            "multiple": True,
            "metavar": "MULTIADDR",
            "help": "Take the model from the swarm at this address (repeat), not from the home.",
        },
    ),
    (("--device",), {"metavar": "DEVICE", "help": "auto, cpu, cuda or cuda:N."}),
    (
        ("--allow-custom-task",),
        {"is_flag": True, "help": "Run the local code that the run names as module:Class."},
    ),
)


def model_options(command: Command) -> Command:
    """Add `--certificate`, `--join`, `--device` and `--allow-custom-task`."""
    for names, attributes in reversed(_OPTIONS):
        command = click.option(*names, **attributes)(command)
    return command


def model_config(invocation: Invocation, device: str | None, allow_custom_task: bool) -> Config:
    """Return the settings in force for a command with these options."""
    flags: dict[str, str | tuple[str, ...]] = {}
    if device is not None:
        flags["worker.device"] = device
    if allow_custom_task:
        flags["worker.allow_custom_task"] = "true"
    return load_config(invocation.home, invocation.config, flags, os.environ)[0]
