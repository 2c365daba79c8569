"""Ends a child when its parent ends, whatever the cause. Runs in the child.

Only the parent holds the other end of the link. A thread that reads the link sees it close, and
ends the whole process group. Where that thread cannot run, because an extension holds the
interpreter's lock, the kernel's parent-death signal ends the process.

That signal ends a single process and runs no code. A child that starts processes of its own
therefore forks a guard, or is started by one (`guard.py`).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
from collections.abc import Callable

from daemon.children.frames import Deframer

# linux/prctl.h. The signal comes when the spawning *thread* ends, so process.py spawns from the
# main thread.
_PR_SET_PDEATHSIG = 1
_READ_BYTES = 65536
# Between two checks that the guarded process still runs. The kernel does not report its end.
_LOOK_MS = 1000


def die() -> None:
    """End this process and its group at once."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _when_parent_dies(number: signal.Signals) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends."""
    _when_parent_dies(signal.SIGKILL)
    # The parent ended before the call.
    if os.getppid() != parent:
        die()


def resume_with_parent_death() -> None:
    """Let the kernel continue this process, if it is stopped, when its parent ends.

    A running process ignores SIGCONT.
    """
    _when_parent_dies(signal.SIGCONT)


def guard(link: socket.socket, last: Callable[[], None]) -> None:
    """Fork a process that waits for the end of the parent or of this process.

    It then calls `last` and ends the group. Call this after `die_with_parent`, and before any
    thread is started. The guard works even where this process hangs. In a group that was stopped
    with SIGSTOP, the parent's end kills this process, and this process's end continues the guard.
    """
    guarded = os.getpid()
    if os.fork():
        return
    resume_with_parent_death()
    watched = select.poll()
    # poll(2) always reports that the other end was closed.
    watched.register(link, 0)
    while os.getppid() == guarded and not watched.poll(_LOOK_MS):
        pass
    try:
        last()
    finally:
        os.killpg(0, signal.SIGKILL)


def read_link(
    link: socket.socket, receive: Callable[[bytes], None], then: Callable[[], None] = die
) -> None:
    """Give each body to `receive` until the parent is gone, then call `then`.

    Run this in its own thread. `receive` must return at once. A child with a guard needs no `then`.
    """
    deframer = Deframer()
    try:
        while data := link.recv(_READ_BYTES):
            for body in deframer.feed(data):
                receive(body)
    finally:
        then()
