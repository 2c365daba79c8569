"""Connections of the API: how many there may be, and how long one may wait for its client.

Anyone who reaches the port can connect without the key. So a connection counts as idle until a
request has the key, and again after its answer. An idle connection is closed after `IDLE_S`. When
all places are taken, the connection that has been idle for longest makes room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

# The head of a request is a few packets, and clients open a new connection where one was closed.
IDLE_S = 30.0
# Connections beside those of the answers that are being made.
SPARE_CONNECTIONS = 256
# A connection that has been idle for less keeps its place.
SLOW_S = 2.0

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ApiConnection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_deadline", "_idle_since")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self.idle()

    def idle(self) -> None:
        """Begin to wait for the client."""
        self.busy()
        loop = asyncio.get_running_loop()
        self._idle_since: float | None = loop.time()
        self._deadline = loop.call_later(IDLE_S, self.force_close)

    def busy(self) -> None:
        """Note that the client waits for this server now."""
        self._idle_since = None
        if self._deadline is not None:
            self._deadline.cancel()

    @property
    def idle_since(self) -> float | None:
        """Since when this connection waits for its client; None while the client waits."""
        return self._idle_since

    def log_exception(self, *args: Any, **named: Any) -> None:
        # A stranger must not fill the log with bodies that are not what their headers say.
        if not isinstance(named.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **named)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.busy()
        super().connection_lost(exc)


class RejectedConnection(asyncio.Protocol):
    """A connection above the limit: closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class ApiServer(web.Server):
    """aiohttp's low-level server with our connections and a limit on their number."""

    def __init__(self, handle: Handle, max_open: int) -> None:
        """`max_open` answers are made at once.

        A handler is cancelled when its client goes, which frees the caches of the answer.
        """
        super().__init__(handle, handler_cancellation=True)
        self._most = max_open + SPARE_CONNECTIONS

    def __call__(self) -> Any:
        if len(self.connections) >= self._most and not self._made_room():
            return RejectedConnection()
        return ApiConnection(
            self,
            loop=asyncio.get_running_loop(),
            # aiohttp accepts None for no log, but its annotation does not say so.
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=IDLE_S,
        )

    def _made_room(self) -> bool:
        idle = [
            (one.idle_since, id(one), one)
            for one in self.connections
            if isinstance(one, ApiConnection) and one.idle_since is not None
        ]
        if not idle or asyncio.get_running_loop().time() - min(idle)[0] < SLOW_S:
            return False
        min(idle)[2].force_close()
        return True
