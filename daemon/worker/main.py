"""The worker process's entry: `python -P -m daemon.worker.main SOCKET_FD MEMORY_FD PARENT_PID`, started by `process.py` alone.

Guarantees: it does not outlive its parent, however that ends and whatever is being computed. The socket's other end is held by the parent and nobody
else; a thread that only reads sees it close and ends the whole process group. Should that thread be kept from running (a task's extension that holds
the interpreter's lock), the kernel's parent-death signal does the same.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
from queue import SimpleQueue

from daemon.worker.messages import Command, Deframer, Message, decode_command, frame

_PR_SET_PDEATHSIG = 1  # linux/prctl.h. It fires when the *thread* that spawned us ends, which is why process.py spawns from the main one
_READ_BYTES = 65536


def die() -> None:
    """End this process and whatever a task has started from it, now."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def die_with_parent(parent: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the kernel knew our wish
        die()


def read_commands(link: socket.socket, inbox: SimpleQueue[Command]) -> None:
    """Runs in its own thread until the parent is gone. Does no work: whoever trains takes from `inbox`."""
    deframer = Deframer()
    try:
        while data := link.recv(_READ_BYTES):
            for body in deframer.feed(data):
                inbox.put(decode_command(body))
    finally:
        die()


def main() -> None:
    link_fd, memory_fd, parent = (int(argument) for argument in sys.argv[1:4])
    die_with_parent(parent)
    os.set_inheritable(link_fd, False)  # a task's own children must not keep the link open
    os.set_inheritable(memory_fd, False)
    os.dup2(2, 1)  # what a task prints belongs to the log
    faulthandler.enable()
    link = socket.socket(fileno=link_fd)
    inbox: SimpleQueue[Command] = SimpleQueue()
    threading.Thread(target=read_commands, args=(link, inbox), name="commands", daemon=True).start()

    def send(message: Message) -> None:
        link.sendall(frame(message))

    # Here and not above: torch takes seconds to import, and a parent that dies meanwhile must be noticed.
    from daemon.worker.session import Session  # noqa: PLC0415

    Session(inbox, send, memory_fd).run()


if __name__ == "__main__":
    main()
