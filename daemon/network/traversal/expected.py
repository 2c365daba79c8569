"""Connections that this node asked others for and that have not arrived yet, by token."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from daemon.network.traversal.preamble import TOKEN_BYTES


class Expectation:
    """One connection that is to arrive."""

    def __init__(self, token: bytes) -> None:
        self.token = token
        self._stream: trio.SocketStream | None = None
        self._arrived = trio.Event()

    async def stream(self) -> trio.SocketStream:
        """Wait for the connection. From then on the caller owns it."""
        await self._arrived.wait()
        assert self._stream is not None
        stream, self._stream = self._stream, None
        return stream

    def give(self, stream: trio.SocketStream) -> bool:
        """Hand the connection over. False where one has arrived already."""
        if self._arrived.is_set():
            return False
        self._stream = stream
        self._arrived.set()
        return True

    async def drop(self) -> None:
        """Close a connection that arrived and that no one took."""
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)


class ExpectedConnections:
    """The expectations of one node. A token is used once, and forgotten with its block."""

    def __init__(self) -> None:
        self._expected: dict[bytes, Expectation] = {}

    def __len__(self) -> int:
        return len(self._expected)

    @contextmanager
    def expecting(self) -> Iterator[Expectation]:
        """Expect one connection inside the block."""
        expectation = Expectation(secrets.token_bytes(TOKEN_BYTES))
        self._expected[expectation.token] = expectation
        try:
            yield expectation
        finally:
            del self._expected[expectation.token]

    def give(self, token: bytes, stream: trio.SocketStream) -> bool:
        """Hand a connection to whoever expects it.

        The socket is duplicated: the listener closes its own one when its handler returns.

        Returns:
            Whether it was expected.
        """
        expectation = self._expected.get(token)
        if expectation is None:
            return False
        try:
            copy = trio.SocketStream(stream.socket.dup())
        except OSError:
            # The connection is gone, or no descriptor is left.
            return False
        if expectation.give(copy):
            return True
        copy.socket.close()
        return False
