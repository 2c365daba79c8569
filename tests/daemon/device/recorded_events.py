"""What a trainer told: a list of events that tests can wait on, and the process numbers they want
to follow.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import TypeVar

import trio

from protocol.journal import JournalEvent

E = TypeVar("E", bound=JournalEvent)


class Happened:
    """An `on_event`.

    `await happened.next(Kind)` gives the events of one kind in order, each once.
    """

    def __init__(self) -> None:
        self.events: list[JournalEvent] = []
        self._given: set[int] = set()
        self._more = trio.Event()

    def __call__(self, event: JournalEvent) -> None:
        self.events.append(event)
        self._more.set()
        self._more = trio.Event()

    async def next(self, kind: type[E]) -> E:
        while True:
            for place, event in enumerate(self.events):
                if place not in self._given and isinstance(event, kind):
                    self._given.add(place)
                    return event
            await self._more.wait()


def workers_of(parent: int) -> list[int]:
    """The worker processes that `parent` has now."""
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
    """A process in the middle of exec has closed what it inherited, which is when its parent goes
    on, and has no command line yet.
    """
    for _ in range(1000):
        command = file.read_bytes()
        if command:
            return command
        os.sched_yield()
    return b""  # a zombie has none either


def gone_within(pid: int, seconds: float) -> bool:
    """Whether the process, anybody's child, ends in that time (or had already)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)
