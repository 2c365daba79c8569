"""Records a trainer's events for tests to wait on, and finds its processes."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import TypeVar

import trio

from protocol.journal import JournalEvent

E = TypeVar("E", bound=JournalEvent)


class RecordedEvents:
    """An `on_event` that keeps all events."""

    def __init__(self) -> None:
        self.events: list[JournalEvent] = []
        self._given: set[int] = set()
        self._more = trio.Event()

    def __call__(self, event: JournalEvent) -> None:
        self.events.append(event)
        self._more.set()
        self._more = trio.Event()

    async def next(self, kind: type[E]) -> E:
        """Return the next event of a kind, and wait for it. Each event is returned once."""
        while True:
            for place, event in enumerate(self.events):
                if place not in self._given and isinstance(event, kind):
                    self._given.add(place)
                    return event
            await self._more.wait()


def workers_of(parent: int) -> list[int]:
    """Return the worker processes that are children of `parent` now."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            try:
                command = _command_of(Path(f"/proc/{child}/cmdline"))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"daemon.device.main" in command:
                found.append(int(child))
    return found


def _command_of(file: Path) -> bytes:
    """Return a process's command line, also in the middle of an exec.

    Such a process has closed its inherited descriptors, so its parent runs on, but it has no
    command line yet.
    """
    for _ in range(1000):
        command = file.read_bytes()
        if command:
            return command
        os.sched_yield()
    # A zombie has no command line either.
    return b""


def gone_within(pid: int, seconds: float) -> bool:
    """Return whether the process ends within that time, or has ended already."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)
