"""The hivemind process's entry: `python -P -m daemon.services.training.hivemind.main SOCKET_FD MEMORY_FD
PARENT_PID SOCKETS`, started by `process.py` alone.

asyncio, torch and hivemind are at home here; libp2p and trio are not. Guarantees: neither it nor
anything that hivemind starts outlives its parent (`daemon/children/parent_death.py`), and the folder of
hivemind's Unix sockets goes with them.
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


def main(told: OnMoment | None = None) -> None:
    """`told` hears where this member's rounds are, in the averager's own process."""
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

    def take(body: bytes) -> None:
        inbox.put(decode_command(body))

    threading.Thread(
        target=read_link, args=(link, take, lambda: None), name="commands", daemon=True
    ).start()

    def send(message: ChildMessage) -> None:
        link.sendall(frame(message))

    # Here and not above: hivemind takes seconds to import, and a parent that dies meanwhile must be
    # noticed.
    from daemon.services.training.hivemind.command_loop import HivemindCommandLoop  # noqa: PLC0415
    from daemon.services.training.hivemind.observed_averager import ignore_moment  # noqa: PLC0415

    HivemindCommandLoop(inbox, send, memory_fd, sockets, told or ignore_moment).run()


if __name__ == "__main__":
    main()
