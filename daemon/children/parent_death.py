"""How a child does not outlive its parent, however that ends and whatever is being computed.

Runs in the child.

The other end of the link is held by the parent and nobody else; a thread that only reads sees it
close and ends the whole process group. Should that thread be kept from running (an extension that
holds the interpreter's lock), the kernel's parent-death signal ends the process itself.

That signal ends one process and runs nothing. A child that starts processes of its own forks a
guard instead, or is started by one (`guard.py`).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
from collections.abc import Callable

from daemon.children.frames import Deframer

# linux/prctl.h. It fires when the *thread* that spawned us ends, which is why process.py spawns
# from the main one.
_PR_SET_PDEATHSIG = 1
_READ_BYTES = 65536
# Between looks at whether the guarded process lives: nobody tells its child of that.
_LOOK_MS = 1000


def die() -> None:
    """End this process and whatever was started from it, now."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _when_parent_dies(number: signal.Signals) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    _when_parent_dies(signal.SIGKILL)
    # It was gone before the kernel knew our wish.
    if os.getppid() != parent:
        die()


def resume_with_parent_death() -> None:
    """Let the parent's death continue this process where it is stopped (SIGSTOP).

    One that runs ignores that signal.
    """
    _when_parent_dies(signal.SIGCONT)


def guard(link: socket.socket, last: Callable[[], None]) -> None:
    """Fork a process that does nothing but wait: when the parent is gone, or this process is, it
    calls `last` and ends the group.

    To be called after `die_with_parent` and before any thread is started. The guard needs neither
    this process's interpreter nor its life. In a group that was stopped (SIGSTOP) the parent's
    death kills this process, and this process's death lets the guard go on.
    """
    guarded = os.getpid()
    if os.fork():
        return
    resume_with_parent_death()
    watched = select.poll()
    # The other end's close is reported unasked.
    watched.register(link, 0)
    while os.getppid() == guarded and not watched.poll(_LOOK_MS):
        pass
    try:
        last()
    finally:
        os.killpg(0, signal.SIGKILL)


def read_link(
    link: socket.socket, take: Callable[[bytes], None], then: Callable[[], None] = die
) -> None:
    """Runs in its own thread until the parent is gone, gives each body to `take`, which does no
    work; then `then` (nothing, under a guard).
    """
    deframer = Deframer()
    try:
        while data := link.recv(_READ_BYTES):
            for body in deframer.feed(data):
                take(body)
    finally:
        then()
