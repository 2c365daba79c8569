"""The entry point of the hivemind process, which `process.py` starts.

    python -P -m daemon.services.training.hivemind.main SOCKET_FD MEMORY_FD PARENT_PID SOCKETS

The process may import asyncio, torch and hivemind, but neither libp2p nor trio. Neither the process
nor anything that hivemind starts outlives its parent (`daemon/children/parent_death.py`). Their end
removes the folder that holds hivemind's Unix sockets.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import socket
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from daemon.children.messages import ChildMessage, frame
from daemon.children.parent_death import die_with_parent, guard, read_link
from daemon.services.training.hivemind.messages import HivemindCommand, decode_command

if TYPE_CHECKING:
    from daemon.services.training.hivemind.observed_averager import OnMoment


def main(on_moment: OnMoment | None = None) -> None:
    """Serve the node until the node ends.

    hivemind calls `on_moment` in the averager's process, at each moment of its rounds.
    """
    link_fd, memory_fd, parent = (int(argument) for argument in sys.argv[1:4])
    sockets = sys.argv[4]
    die_with_parent(parent)
    os.set_inheritable(link_fd, False)
    os.set_inheritable(memory_fd, False)
    os.dup2(2, 1)
    faulthandler.enable()
    link = socket.socket(fileno=link_fd)
    guard(link, lambda: shutil.rmtree(sockets, ignore_errors=True))
    inbox: SimpleQueue[HivemindCommand] = SimpleQueue()

    threading.Thread(
        target=read_link,
        args=(link, lambda body: inbox.put(decode_command(body)), lambda: None),
        name="commands",
        daemon=True,
    ).start()

    def send(message: ChildMessage) -> None:
        link.sendall(frame(message))

    # Late imports: hivemind takes seconds to import. The guard above must notice a parent that dies
    # meanwhile.
    from daemon.services.training.hivemind.command_loop import HivemindCommandLoop  # noqa: PLC0415
    from daemon.services.training.hivemind.observed_averager import ignore_moment  # noqa: PLC0415

    HivemindCommandLoop(inbox, send, memory_fd, sockets, on_moment or ignore_moment).run()


if __name__ == "__main__":
    main()
