"""TCP sockets: listening on a port, and what both planes set on a connection."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

import trio

from daemon.network.addresses import plain_host
from daemon.network.port_holder import port_holder
from protocol.errors import UserError

_BACKLOG = 256

# Lost packets are repeated after 1 s, 3 s and 7 s. A control connection is lost after 3 s.
LOST_MS = 8_000

StreamListener = trio.abc.Listener[trio.SocketStream]

_PORT_TAKEN = (
    "stop the program that has this port, or choose another one: "
    "--port PORT (0: the system picks one)"
)
_PORT_FIXES = {
    errno.EADDRNOTAVAIL: (
        "set listen_host under [network] to an address of this machine; :: is every one"
    ),
    errno.EACCES: (
        "ports below 1024 belong to root; choose a higher one: "
        "--port PORT (0: the system picks one)"
    ),
}


def disable_nagle(stream: trio.SocketStream) -> None:
    """Make small frames leave as soon as they are written.

    Buffer sizes are left to the kernel: setting a size would switch its own tuning off.
    """
    # Some systems refuse where the other side has reset the connection. The first read reports it.
    with suppress(OSError):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def notice_loss(stream: trio.SocketStream) -> None:
    """Let the kernel break a connection whose other end acknowledges nothing for `LOST_MS`.

    An end whose router got another address takes bytes in silence for a quarter of an hour else.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        # A connection that is gone already shows in the first read.
        with suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, option, LOST_MS)


def remote_host(stream: trio.SocketStream) -> str:
    """The IP address of the other side; empty when the connection is gone already."""
    try:
        host: str = stream.socket.getpeername()[0]
    except OSError:
        return ""
    return plain_host(host)


def bind(host: str, port: int) -> trio.SocketListener:
    """A listening socket. At "::" it accepts IPv4 connections too.

    Without SO_REUSEPORT: a second daemon on the same port must fail instead of sharing it. On a
    machine without IPv6, "::" stands for 0.0.0.0.

    Raises:
        OSError: When the address or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT or host != "::":
            raise
        host = "0.0.0.0"
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def listen(host: str, port: int, usual_port: int = 0) -> trio.SocketListener:
    """A listening socket on `port`, where 0 stands for any free port.

    Args:
        usual_port: The port to prefer when `port` is 0. Another one is used where it is taken.

    Raises:
        UserError: "PORT", with the program that holds the port where it is known.
    """
    if port == 0 and usual_port:
        try:
            return bind(host, usual_port)
        except OSError:
            # Another program has the port now. Any other port will do; `lost_port` reports it.
            pass
    try:
        return bind(host, port)
    except (OSError, OverflowError) as error:
        holder = port_holder(port)
        raise UserError(
            "PORT",
            f"Cannot listen on {host} port {port}.",
            why=f"{holder} listens there" if holder else str(error),
            fix=_PORT_FIXES.get(getattr(error, "errno", None) or 0, _PORT_TAKEN),
        ) from None
