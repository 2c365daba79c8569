"""The entry point of the process of a stage, which `daemon/children/process.py` starts.

    python -P -m daemon.device.stages.main SOCKET_FD MEMORY_FD PARENT_PID

The process does not outlive its parent (`daemon/children/parent_death.py`).
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
from queue import SimpleQueue

from daemon.children.messages import ChildMessage, frame
from daemon.children.parent_death import die_with_parent, read_link
from daemon.device.stages.messages import StageCommand, decode_command


def main() -> None:
    link_fd, memory_fd, parent = (int(argument) for argument in sys.argv[1:4])
    die_with_parent(parent)
    # The node logs stderr line by line. What libraries print goes there too.
    os.dup2(2, 1)
    faulthandler.enable()
    link = socket.socket(fileno=link_fd)
    commands: SimpleQueue[StageCommand] = SimpleQueue()
    threading.Thread(
        target=read_link,
        args=(link, lambda body: commands.put(decode_command(body))),
        name="commands",
        daemon=True,
    ).start()

    def send(message: ChildMessage) -> None:
        link.sendall(frame(message))

    # A late import: torch takes seconds to import. The thread above must notice a parent that dies
    # meanwhile.
    from daemon.device.stages.stage_loop import StageLoop  # noqa: PLC0415

    StageLoop(commands.get, send, memory_fd).run()


if __name__ == "__main__":
    main()
