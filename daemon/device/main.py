"""The entry point of the worker process, which `daemon/children/process.py` starts.

    python -P -m daemon.device.main SOCKET_FD MEMORY_FD PARENT_PID

The process does not outlive its parent (`daemon/children/parent_death.py`).
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import traceback
from contextlib import suppress

from daemon.children.messages import ChildMessage, frame
from daemon.children.parent_death import die_with_parent, read_link
from daemon.device.command_inbox import CommandInbox
from daemon.device.messages import decode_command


def main() -> None:
    link_fd, memory_fd, parent = (int(argument) for argument in sys.argv[1:4])
    die_with_parent(parent)
    # The children of a task must not keep the link open.
    os.set_inheritable(link_fd, False)
    os.set_inheritable(memory_fd, False)
    # The node logs stderr line by line. The output of a task goes there too.
    os.dup2(2, 1)
    # The file stays open to the end of the process.
    sys.stdout = open(  # noqa: SIM115
        1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    faulthandler.enable()
    link = socket.socket(fileno=link_fd)
    inbox = CommandInbox()
    # Two threads send.
    sending = threading.Lock()
    threading.Thread(
        target=read_link,
        args=(link, lambda body: inbox.receive(decode_command(body))),
        name="commands",
        daemon=True,
    ).start()

    def send(message: ChildMessage) -> None:
        with sending:
            link.sendall(frame(message))

    # A late import: torch takes seconds to import. The thread above must notice a parent that dies
    # meanwhile.
    from daemon.device.arbiter import DeviceArbiter  # noqa: PLC0415

    os.register_at_fork(after_in_child=lambda: _close_link(link_fd))
    code = 1
    try:
        DeviceArbiter(inbox, send, memory_fd).run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    # The root of this process: an error of this program goes to the log with its traceback.
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        # End at once, whatever threads the task has started.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _close_link(link_fd: int) -> None:
    """Close the link in a child that the task forked."""

    with suppress(OSError):
        os.close(link_fd)


if __name__ == "__main__":
    main()
