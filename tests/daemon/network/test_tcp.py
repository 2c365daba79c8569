"""What both planes set on a connection."""

from __future__ import annotations

import socket

import pytest
import trio

from daemon.network.tcp import disable_nagle


async def test_disable_nagle_leaves_a_connection_that_refuses_the_option() -> None:
    # A Unix socket refuses options of TCP, as macOS does after a reset.
    one, two = trio.socket.socketpair()
    with two:
        async with trio.SocketStream(one) as stream:
            with pytest.raises(OSError, match=r"\S"):
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            disable_nagle(stream)
            await stream.send_all(b"alive")
            assert await two.recv(5) == b"alive"
