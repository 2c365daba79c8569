"""Stands between a node and a child whose code is other people's: `python -P -m
daemon.children.guard LINK_FD MEMORY_FD PARENT_PID MODULE`.

It starts MODULE with the same arguments and then only waits. When MODULE's process ends, when the
node ends or when the node says so (SIGTERM), it ends everything that MODULE started: also what has
a session of its own or gave its parent up, since this process adopts all orphans of its family.
Then it ends as MODULE's process did. A `kill -9` of the node, of MODULE's process or of both leaves
nothing running.

What it cannot do: when this process itself is killed, MODULE's process dies with it, and the node
ends the rest by a mark in the environment, which a process that was started with an empty
environment does not carry. Where this process and the node are killed at once, nobody is left to do
that.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
from types import FrameType
from typing import NoReturn

from daemon.children.descendants import adopt_orphans, end_descendants, reap_orphans
from daemon.children.parent_death import resume_with_parent_death


class _EndOrderedError(BaseException):
    """The node wants the family to end."""


def main() -> NoReturn:
    link, memory, parent = (int(argument) for argument in sys.argv[1:4])
    module, more = sys.argv[4], sys.argv[5:]
    adopt_orphans()
    signal.signal(signal.SIGTERM, _order)
    ordered = False
    child = 0
    try:
        child = _start(module, link, memory, more)
        os.close(memory)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: reap_orphans(child))
        resume_with_parent_death()
        if os.getppid() == parent:
            _wait(child, link)
    except _EndOrderedError:
        ordered = True
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = _status(child) if child and not ordered else None
    end_descendants()
    _end_as(status)


def _order(_number: int, _frame: FrameType | None) -> None:
    raise _EndOrderedError


def _start(module: str, link: int, memory: int, more: list[str]) -> int:
    """The process of `module`, in a session of its own, with this one as its parent."""
    guard = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.execv(
            sys.executable,
            [sys.executable, "-P", "-m", module, str(link), str(memory), str(guard), *more],
        )
    finally:
        os._exit(127)


def _wait(child: int, link: int) -> None:
    """Until the child has ended, or the node's end of the link is closed."""
    exited = os.pidfd_open(child)
    watched = select.poll()
    watched.register(exited, select.POLLIN)
    # The other end's close is reported unasked.
    watched.register(link, 0)
    watched.poll()


def _status(child: int) -> int | None:
    """How the child ended; None where it has not."""
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if pid else None


def _end_as(status: int | None) -> NoReturn:
    """End as a process with that status of waitpid(2) did; without one, as a process that was
    killed."""
    if status is not None and os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = os.WTERMSIG(status) if status is not None else signal.SIGKILL
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(1)


if __name__ == "__main__":
    main()
