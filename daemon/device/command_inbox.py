"""Receives the node's commands in one thread, and gives them to another between two steps.

A few commands must not wait for a step. They are obeyed at once, in the thread that receives them.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue

from daemon.device.messages import (
    EvaluateModel,
    HandOverWork,
    MeasureGroups,
    SaveInnerState,
    ShiftAnchor,
    WorkerCommand,
)

UrgentCommand = HandOverWork | ShiftAnchor | EvaluateModel | MeasureGroups | SaveInnerState


class WakeUp:
    """An entry that only ends a wait: the thread that trains may have steps to make."""


class CommandInbox:
    """The commands of one worker process."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[WorkerCommand | WakeUp | BaseException] = SimpleQueue()
        self._obey: Callable[[UrgentCommand], None] | None = None

    def obey_at_once(self, obey: Callable[[UrgentCommand], None]) -> None:
        """Set what obeys an urgent command, in the thread of `receive`.

        The node sends urgent commands only after the worker reported that it is ready.
        """
        self._obey = obey

    def receive(self, command: WorkerCommand) -> None:
        """Obey a command at once, or let it wait. An error of `obey` is raised by `get`."""
        if self._obey is None or not isinstance(command, UrgentCommand):
            self._waiting.put(command)
            return
        try:
            self._obey(command)
        # The thread that trains reports all errors of this process, and ends it.
        except BaseException as error:  # noqa: BLE001
            self._waiting.put(error)

    def wait(self, command: WorkerCommand) -> None:
        """Let a command wait, of which a part was obeyed at once."""
        self._waiting.put(command)

    def wake(self) -> None:
        """End the wait of `get`."""
        self._waiting.put(WakeUp())

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._waiting.empty()

    def get(self) -> WorkerCommand | WakeUp:
        """Wait for the next command, and return it."""
        entry = self._waiting.get()
        if isinstance(entry, BaseException):
            raise entry
        return entry
