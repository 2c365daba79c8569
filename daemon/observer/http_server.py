"""The handler of all requests of the web side."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from daemon.observer.api import control
from daemon.observer.api.broadcaster import Broadcaster
from daemon.observer.api.control import OrderRefused, bearer_of, read_order
from daemon.observer.api.dashboard import node_of
from daemon.observer.api.event_stream import MEDIA_TYPE, stream_events
from daemon.observer.api.query import BadQuery, parameters
from daemon.observer.api.resources import Resource, Sources, Unavailable, encode, find_resource
from daemon.observer.api.web_socket import serve_web_socket
from daemon.observer.bridge import Bridge
from daemon.observer.client_limits import BURST, REQUESTS_PER_S, ClientLimits
from daemon.observer.endpoints import JSON
from daemon.observer.http_answers import AnswerTable, HttpAnswer, refuse, respond
from daemon.observer.http_connection import HttpConnection, HttpServer
from daemon.observer.owner_view import INVITATION_PATH, KEY_HEADER, invitation_answer
from daemon.observer.report_queue import REPORT_PATHS, ReportQueue
from daemon.observer.request_guard import METHODS, SECURITY_HEADERS, Refusal, RequestGuard

EVENTS_PATH = "/api/v1/events"
SOCKET_PATH = "/ws"
NODES_PREFIX = "/api/nodes/"
# Time for the body of an order; it is one packet.
BODY_S = 5.0

_TOO_MANY = Refusal(
    status=429,
    code="RATE",
    what=f"{REQUESTS_PER_S:g} requests a second are answered, and {BURST:g} at once.",
    fix="ask less often, or read the events as they happen: /api/v1/events",
)


class HttpHandler:
    """Answers requests. Belongs to one event loop."""

    def __init__(
        self,
        bridge: Bridge,
        guard: RequestGuard,
        reports: ReportQueue | None,
        limits: ClientLimits,
        broadcaster: Broadcaster,
    ) -> None:
        """`reports` receives usage reports; None refuses them."""
        self._bridge, self._guard, self._reports = bridge, guard, reports
        self._limits, self._broadcaster = limits, broadcaster
        self._table = AnswerTable(bridge)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        more = self._guard.cors_headers(request.headers)
        methods = self._methods(request.path)
        refusal = self._refusal(request, methods)
        if refusal is None and self._is_stream(request):
            return await self._stream(request, {**SECURITY_HEADERS, **more})
        if refusal is None and request.method == "OPTIONS":
            headers = {**SECURITY_HEADERS, **self._guard.preflight_headers(request.headers)}
            response = web.Response(status=204, headers=headers)
        else:
            answer = refuse(refusal) if refusal else await self._answer(request)
            known = request.headers.get("If-None-Match", "")
            response = respond(answer, known, more, methods)
        if isinstance(request.protocol, HttpConnection):
            request.protocol.answered()
        if refusal or request.body_exists:
            # The rest of what the client sends is not read.
            response.force_close()
        return response

    def _methods(self, path: str) -> tuple[str, ...]:
        """The methods of a path."""
        takes = path in control.PATHS or (self._reports is not None and path in REPORT_PATHS)
        return ("POST",) if takes else METHODS

    def _refusal(self, request: web.BaseRequest, methods: tuple[str, ...]) -> Refusal | None:
        local = request.transport.get_extra_info("sockname") if request.transport else None
        refusal = self._guard.check(
            request.method,
            request.path_qs,
            request.headers,
            str(local[0]) if local else "",
            methods,
        )
        if refusal is None and not self._limits.request(
            request.remote or "", asyncio.get_running_loop().time()
        ):
            return _TOO_MANY
        return refusal

    # ---------------------------------------------------------------------------------- streams

    @staticmethod
    def _is_stream(request: web.BaseRequest) -> bool:
        if request.method != "GET":
            return False
        if request.path == SOCKET_PATH:
            return web.WebSocketResponse().can_prepare(request).ok
        return request.path == EVENTS_PATH and MEDIA_TYPE in request.headers.get("Accept", "")

    async def _stream(
        self, request: web.BaseRequest, headers: dict[str, str]
    ) -> web.StreamResponse:
        if isinstance(request.protocol, HttpConnection):
            request.protocol.streams()
        if request.path == SOCKET_PATH:
            return await serve_web_socket(
                request, headers, lambda: self._bridge.snapshot().source, self._broadcaster
            )
        bridge = self._bridge
        return await stream_events(request, headers, bridge.feed, bridge.store, self._broadcaster)

    # ---------------------------------------------------------------------------------- answers

    async def _answer(self, request: web.BaseRequest) -> HttpAnswer:
        path = request.path
        if self._reports is not None and path in REPORT_PATHS:
            reply = await self._reports.accept(request)
            return HttpAnswer(
                body=msgspec.json.encode(reply), content_type=JSON, status=reply.status
            )
        if path in control.PATHS:
            return await self._order(request)
        if path == INVITATION_PATH:
            key = request.headers.get(KEY_HEADER, "")
            return invitation_answer(self._bridge.owner_view, key, request.remote or "")
        if path == SOCKET_PATH:
            what = "This path speaks WebSocket only."
            return refuse(Refusal(status=400, code="UPGRADE", what=what))
        if path.startswith(NODES_PREFIX):
            return self._node(path.removeprefix(NODES_PREFIX))
        found = find_resource(path)
        return self._table.answer(path) if found is None else await self._resource(request, *found)

    async def _order(self, request: web.BaseRequest) -> HttpAnswer:
        """Carry out an order of the run's owner."""
        carry_out = self._bridge.control
        try:
            if carry_out is None:
                what = "Nobody gives orders here: the run has no owner, or is not known yet."
                raise OrderRefused(403, "NOT_OWNER", what)
            order = read_order(await self._body(request))
            action = request.path.removeprefix(control.PREFIX)
            token = bearer_of(request.headers.get("Authorization", ""))
            done = await asyncio.to_thread(carry_out, action, token, order)
        except OrderRefused as error:
            return refuse(error.refusal)
        return HttpAnswer(body=encode(done), content_type=JSON)

    @staticmethod
    async def _body(request: web.BaseRequest) -> bytes:
        """Read a body, cut above its limit. Raises `OrderRefused` for one that does not arrive."""
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                while len(body) <= control.MAX_BODY_BYTES:
                    part = await request.content.read(control.MAX_BODY_BYTES + 1 - len(body))
                    if not part:
                        break
                    body += part
        except TimeoutError:
            what = f"The body did not arrive within {BODY_S:g} s."
            raise OrderRefused(400, "TIMEOUT", what) from None
        return bytes(body)

    def _node(self, peer: str) -> HttpAnswer:
        status = self._bridge.snapshot().source
        for one in (*status.peers, *status.lost):
            if one.peer == peer:
                return HttpAnswer(body=encode(node_of(one)), content_type=JSON)
        what = "No node with that id is known."
        return refuse(Refusal(status=404, code="NOT_FOUND", what=what, fix="/api/nodes lists them"))

    async def _resource(
        self, request: web.BaseRequest, resource: Resource, part: str
    ) -> HttpAnswer:
        snapshot, bridge = self._bridge.snapshot(), self._bridge
        if not resource.blocks and (known := snapshot.page(request.path_qs)) is not None:
            return HttpAnswer(body=known, content_type=JSON, etag=snapshot.etag)
        sources = Sources(
            status=snapshot.source, feed=bridge.feed, store=bridge.store, rewards=bridge.rewards
        )
        try:
            given = parameters(request.query_string, resource.parameters)
            if resource.blocks:
                body = await asyncio.to_thread(resource.answer, sources, part, given)
                return HttpAnswer(body=encode(body), content_type=JSON)
            made = encode(resource.answer(sources, part, given))
        except (BadQuery, Unavailable) as error:
            return refuse(error.refusal)
        snapshot.keep_page(request.path_qs, made)
        return HttpAnswer(body=made, content_type=JSON, etag=snapshot.etag)


def make_server(
    bridge: Bridge, guard: RequestGuard, reports: ReportQueue | None = None
) -> HttpServer:
    """Return the server for one event loop; call it in that loop.

    `reports` receives usage reports; None refuses them.
    """
    limits, broadcaster = ClientLimits(), Broadcaster(bridge.feed)
    handler = HttpHandler(bridge, guard, reports, limits, broadcaster)
    return HttpServer(handler.handle, limits, broadcaster)
