"""aiohttp's low-level server with limits on connections, and the handler of all requests."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from daemon.observer.bridge import Bridge
from daemon.observer.endpoints import JSON
from daemon.observer.http_answers import AnswerTable, HttpAnswer, refuse, respond
from daemon.observer.owner_view import INVITATION_PATH, KEY_HEADER, invitation_answer
from daemon.observer.report_queue import REPORT_PATHS, ReportQueue
from daemon.observer.request_guard import SECURITY_HEADERS, Refusal, RequestGuard

# A connection without a whole request for this long is closed; the page asks every second.
IDLE_S = 20.0
# A browser opens up to six. A site with more readers than this needs a proxy.
MAX_CONNECTIONS = 512
# Limit of a header field: browsers send the cookies of all of localhost here too.
MAX_HEADER_BYTES = 16384


class HttpConnection(web.RequestHandler):
    """One client's connection.

    It is closed when `IDLE_S` pass without an answer of ours, so that no client keeps a connection
    by sending slowly.
    """

    __slots__ = ("_deadline",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(IDLE_S, self.force_close)

    def answered(self) -> None:
        """Restart the idle time."""
        self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(IDLE_S, self.force_close)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not HTTP with a refusal; aiohttp logs any other error."""
        if status < 500:
            refusal = Refusal(
                status=status,
                code="BAD_REQUEST",
                what="This is not a valid HTTP request, or it is too large.",
            )
            response: web.StreamResponse = respond(refuse(refusal))
        else:
            response = super().handle_error(request, status, exc, message)
            response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response

    def connection_lost(self, exc: BaseException | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)


class RejectedConnection(asyncio.Protocol):
    """A connection above `MAX_CONNECTIONS`: closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class HttpServer(web.Server):
    """aiohttp's low-level server with our connections and a limit on their number."""

    def __call__(self) -> Any:
        if len(self.connections) >= MAX_CONNECTIONS:
            return RejectedConnection()
        return HttpConnection(
            self,
            loop=asyncio.get_running_loop(),
            # aiohttp accepts None for no log, but its annotation does not say so.
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=IDLE_S,
            lingering_time=0.0,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=64,
        )


def _answer(bridge: Bridge, table: AnswerTable, request: web.BaseRequest) -> HttpAnswer:
    """Answer a GET that the guard lets through."""
    if request.path != INVITATION_PATH:
        return table.answer(request.path)
    peer = request.transport.get_extra_info("peername") if request.transport else None
    key = request.headers.get(KEY_HEADER, "")
    return invitation_answer(bridge.owner_view, key, str(peer[0]) if peer else "")


def make_server(
    bridge: Bridge, guard: RequestGuard, reports: ReportQueue | None = None
) -> HttpServer:
    """Return the server for one event loop; call it in that loop.

    `reports` receives usage reports; None refuses them.
    """
    table = AnswerTable(bridge)

    async def handle(request: web.BaseRequest) -> web.Response:
        local = request.transport.get_extra_info("sockname") if request.transport else None
        is_report = (
            reports is not None and request.method == "POST" and request.path in REPORT_PATHS
        )
        # The guard allows only GET and HEAD, and a report must pass its other checks.
        method = "GET" if is_report else request.method
        refusal = guard.check(
            method, request.path_qs, request.headers, str(local[0]) if local else ""
        )
        if reports is not None and is_report and not refusal:
            reply = await reports.accept(request)
            answer = HttpAnswer(
                body=msgspec.json.encode(reply), content_type=JSON, status=reply.status
            )
        else:
            answer = refuse(refusal) if refusal else _answer(bridge, table, request)
        response = respond(answer, request.headers.get("If-None-Match", ""))
        if isinstance(request.protocol, HttpConnection):
            request.protocol.answered()
        if refusal or request.body_exists:
            # The rest of what the client sends is not read.
            response.force_close()
        return response

    return HttpServer(handle)
