"""Connections of the web side, with limits on their number, their time and what they send."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from daemon.observer.api.broadcaster import Broadcaster
from daemon.observer.client_limits import ClientLimits
from daemon.observer.http_answers import refuse, respond
from daemon.observer.request_guard import Refusal

# A connection without a whole request for this long is closed; the page asks every second.
IDLE_S = 20.0
# A thousand event streams, and as many readers. A site with more needs a proxy that caches.
MAX_CONNECTIONS = 2048
# Limit of a header field: browsers send the cookies of all of localhost here too.
MAX_HEADER_BYTES = 16384
# A client that has not finished a request for this long may lose its place to a new one.
SLOW_S = 2.0

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


class HttpConnection(web.RequestHandler):
    """One client's connection.

    It is closed when `IDLE_S` pass without an answer of ours, so that no client keeps a connection
    by sending slowly. A stream of events has its own limits.
    """

    __slots__ = ("_address", "_client_limits", "_counted", "_deadline", "_waits_since")

    def __init__(self, server: web.Server, limits: ClientLimits, **options: Any) -> None:
        super().__init__(server, **options)
        self._client_limits = limits
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        loop = asyncio.get_running_loop()
        self._waits_since: float | None = loop.time()
        self._deadline = loop.call_later(IDLE_S, self.force_close)
        self._counted = self._client_limits.connect(self._address)
        if not self._counted:
            self.force_close()

    def answered(self) -> None:
        """Restart the idle time."""
        self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._waits_since = loop.time()
        self._deadline = loop.call_later(IDLE_S, self.force_close)

    def streams(self) -> None:
        """Stop the idle time: what is sent from now on has its own limits."""
        self._deadline.cancel()
        self._waits_since = None

    @property
    def waits_since(self) -> float | None:
        """When this connection began to wait for its client; None while it streams."""
        return self._waits_since

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer in our one form: a request that is not HTTP, or a defect of ours."""
        if status < 500 or isinstance(exc, web.RequestPayloadError):
            # A body that is not what its headers say is the client's fault, too.
            refusal = Refusal(
                status=status if status < 500 else 400,
                code="BAD_REQUEST",
                what="This is not a valid HTTP request, or it is too large.",
            )
        else:
            _log.error("A request of the web side failed", exc_info=exc)
            refusal = Refusal(
                status=500,
                code="INTERNAL",
                what="The observer could not answer, because of a defect in it.",
                fix="report the log of hypergpud observe",
            )
        response = respond(refuse(refusal))
        response.force_close()
        return response

    def connection_lost(self, exc: BaseException | None) -> None:
        self._deadline.cancel()
        if self._counted:
            self._client_limits.disconnect(self._address)
        super().connection_lost(exc)


class RejectedConnection(asyncio.Protocol):
    """A connection above the limits: closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class HttpServer(web.Server):
    """aiohttp's low-level server with our connections and a limit on their number.

    When all places are taken, the client that has kept us waiting for longest loses its place.
    """

    def __init__(self, handle: Handle, limits: ClientLimits, broadcaster: Broadcaster) -> None:
        """`broadcaster` is what the streams of this server subscribe to."""
        super().__init__(handle, handler_cancellation=True)
        self._limits = limits
        self.broadcaster = broadcaster

    def __call__(self) -> Any:
        if len(self.connections) >= MAX_CONNECTIONS and not self._made_room():
            return RejectedConnection()
        return HttpConnection(
            self,
            self._limits,
            loop=asyncio.get_running_loop(),
            # aiohttp accepts None for no log, but its annotation does not say so.
            access_log=None,
            keepalive_timeout=IDLE_S,
            lingering_time=0.0,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=64,
        )

    def _made_room(self) -> bool:
        slow = [
            (one.waits_since, id(one), one)
            for one in self.connections
            if isinstance(one, HttpConnection) and one.waits_since is not None
        ]
        if not slow or asyncio.get_running_loop().time() - min(slow)[0] < SLOW_S:
            return False
        min(slow)[2].force_close()
        return True
