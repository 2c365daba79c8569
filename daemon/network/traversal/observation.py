"""Which outer address and port others see of a socket of this node.

A caller sends the preamble "observe" and gets back what the called node sees, as text: "HOST PORT"
and a line feed. That is STUN (RFC 8489) over TCP, without its framing.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

import trio

from daemon.network.addresses import parse_ip, plain_host
from daemon.network.traversal.preamble import encode_preamble
from protocol.errors import Unreachable

# A round trip of 500 ms for the connect and one for the answer, and a busy peer.
OBSERVE_S = 3.0
# The longest IPv6 address, a port, a space and a line feed.
MAX_ANSWER_BYTES = 60


class Address(NamedTuple):
    """A host and a TCP port."""

    host: str
    port: int


def shared_socket(target: Address, local_port: int = 0) -> trio.socket.SocketType:
    """A TCP socket for a call to `target`, whose local port others of this process may use too."""
    is_ipv6 = ":" in target.host
    made = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("::" if is_ipv6 else "0.0.0.0", local_port))
    except OSError as error:
        made.close()
        raise Unreachable(f"no local port: {error}") from error
    made.setblocking(False)
    return trio.socket.from_stdlib_socket(made)


async def observe(target: Address, local_port: int = 0) -> tuple[int, Address]:
    """Ask `target` where it sees a socket of this node.

    Args:
        local_port: The socket's local port; 0 for a new one.

    Returns:
        The local port, and the outer address.

    Raises:
        Unreachable: No answer within `OBSERVE_S`.
    """
    sock = shared_socket(target, local_port)
    try:
        with trio.fail_after(OBSERVE_S):
            await sock.connect(target)
            local: int = sock.getsockname()[1]
            await sock.send(encode_preamble("observe"))
            answer = b""
            while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER_BYTES:
                piece = await sock.recv(MAX_ANSWER_BYTES - len(answer))
                if not piece:
                    break
                answer += piece
        return local, decode_observation(answer)
    except (trio.TooSlowError, OSError, ValueError) as error:
        raise Unreachable(f"no answer from {target.host} port {target.port}: {error}") from error
    finally:
        sock.close()


def decode_observation(answer: bytes) -> Address:
    """The address in an answer, which any stranger may have written.

    Raises:
        ValueError: When it is no IP address and port. They travel on in our own messages.
    """
    host, _, port = answer.decode("ascii").strip().partition(" ")
    if parse_ip(host) is None or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{answer!r} is no address")
    return Address(host, int(port))


async def answer_observation(stream: trio.SocketStream) -> None:
    """Tell a caller where it is seen."""
    try:
        host, port, *_ = stream.socket.getpeername()
        await stream.send_all(f"{plain_host(host)} {port}\n".encode("ascii"))
        # The caller closes first: the side that closes keeps the connection's ports for a minute.
        with trio.move_on_after(OBSERVE_S):
            await stream.receive_some(1)
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        # The caller is gone, and nobody waits for the answer.
        return
