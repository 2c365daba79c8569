"""Guards a child that runs other people's code, and ends everything that the child has started.

    python -P -m daemon.children.guard LINK_FD MEMORY_FD PARENT_PID MODULE

The guard starts MODULE with the same arguments and waits. When MODULE's process ends, when the node
ends, or when the node sends SIGTERM, the guard ends all processes that MODULE has started. It is a
subreaper, so these include daemonized processes. The guard then ends with the same status as
MODULE's process. A `kill -9` of the node, of MODULE's process or of both leaves no process behind.

When the guard itself is killed, MODULE's process ends with it, and the node ends the other
processes by a mark in their environment. That misses processes that were started with an empty
environment. When the guard and the node are killed at once, those processes stay.
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
    """The node has ordered the end of the child."""


def main() -> NoReturn:
    link, memory, parent = (int(argument) for argument in sys.argv[1:4])
    module, more = sys.argv[4], sys.argv[5:]
    adopt_orphans()
    order = _EndOrder()
    signal.signal(signal.SIGTERM, order)
    ordered = False
    child = 0
    try:
        child = _start(module, link, memory, more)
        os.close(memory)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: reap_orphans(child))
        resume_with_parent_death()
        if os.getppid() == parent:
            _wait(child, link)
        order.raises = False
    except _EndOrderedError:
        ordered = True
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = _status(child) if child and not ordered else None
    end_descendants()
    _end_as(status)


class _EndOrder:
    """The handler of SIGTERM. It raises once, and only while `raises` is set.

    The node may send SIGTERM more than once, and while the child ends by itself. An exception
    outside the block that catches it would end the guard before the child's processes.
    """

    def __init__(self) -> None:
        self.raises = True

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.raises:
            self.raises = False
            raise _EndOrderedError


def _start(module: str, link: int, memory: int, more: list[str]) -> int:
    """Start the process of `module` in a new session. Returns its id."""
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
    """Wait until the child has ended, or the node has closed its end of the link."""
    exited = os.pidfd_open(child)
    watched = select.poll()
    watched.register(exited, select.POLLIN)
    # poll(2) always reports that the other end was closed.
    watched.register(link, 0)
    watched.poll()


def _status(child: int) -> int | None:
    """Return the child's status from waitpid(2); None while it runs."""
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if pid else None


def _end_as(status: int | None) -> NoReturn:
    """End this process with a status from waitpid(2). None means killed."""
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
