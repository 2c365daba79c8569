"""The routes: each answers with bytes that are ready before it is asked.

    /                 the page                     /healthz   200 while the swarm side publishes
    /api/v1/status    the whole status record      /readyz    200 once there is something to show
    /api/v1/peers     its peers                    /metrics   Prometheus
    /api/v1/rounds    its rounds                   /static/*  our own style, script and icon
    POST /api/v1/report, /api/v1/metrics/report    usage reports, where they are taken

Errors are JSON with a stable code. Answers that have an ETag are revalidated every time
(`no-cache`), all others are not stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import resources
from typing import Any

import msgspec
from aiohttp import web

from daemon.observer import metrics
from daemon.observer.bridge import SILENT_S, Bridge, Snapshot
from daemon.observer.report_queue import REPORT_PATHS, ReportQueue
from daemon.observer.request_guard import METHODS, SECURITY_HEADERS, Refusal, RequestGuard
from daemon.oracle.receiver import ReportReply
from protocol.digest import digest

HTML = "text/html; charset=utf-8"
JSON = "application/json"
_STATIC_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# A connection that brought no whole request for so long is closed; the page asks every second.
IDLE_S = 20.0
# A browser opens up to six; more readers than this belong behind a proxy.
MAX_CONNECTIONS = 512
# A header field: cookies of everything else on localhost arrive here too.
MAX_HEADER_BYTES = 16384


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A body ready to send. Without an `etag` it is not to be stored."""

    body: bytes
    content_type: str
    etag: str = ""
    status: int = 200


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a request, as JSON."""

    error: Refusal


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`/healthz` and `/readyz`: `reason` says what is missing."""

    ok: bool
    as_of: float
    reason: str = ""


def refuse(refusal: Refusal) -> HttpAnswer:
    """A refusal as an answer."""
    return HttpAnswer(
        body=msgspec.json.encode(ErrorBody(error=refusal)), content_type=JSON, status=refusal.status
    )


def _verdict(verdict: ReportReply) -> HttpAnswer:
    """What a reporter is told: its own status and reason, in the words of the API."""
    return HttpAnswer(body=msgspec.json.encode(verdict), content_type=JSON, status=verdict.status)


def static_answers() -> dict[str, HttpAnswer]:
    """Our own files, read once."""
    answers = {}
    for file in resources.files("daemon.observer").joinpath("static").iterdir():
        content_type = _STATIC_TYPES.get(file.name.rpartition(".")[2])
        if content_type:
            body = file.read_bytes()
            answers[f"/static/{file.name}"] = HttpAnswer(
                body=body, content_type=content_type, etag=f'"{digest(body).hex()[:32]}"'
            )
    return answers


def _health(ok: bool, as_of: float, reason: str) -> HttpAnswer:
    body = msgspec.json.encode(Health(ok=ok, as_of=as_of, reason="" if ok else reason))
    return HttpAnswer(body=body, content_type=JSON, status=200 if ok else 503)


class Endpoints:
    """What is served at each path. Pure but for the bridge; belongs to the web thread."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._static = static_answers()
        # Browsers ask for it unasked.
        self._static["/favicon.ico"] = self._static["/static/icon.svg"]
        self._pages: dict[str, Callable[[Snapshot], HttpAnswer]] = {
            "/": lambda now: HttpAnswer(body=now.page, content_type=HTML, etag=now.etag),
            "/api/v1/status": lambda now: HttpAnswer(
                body=now.status, content_type=JSON, etag=now.etag
            ),
            "/api/v1/peers": lambda now: HttpAnswer(
                body=now.peers, content_type=JSON, etag=now.etag
            ),
            "/api/v1/rounds": lambda now: HttpAnswer(
                body=now.rounds, content_type=JSON, etag=now.etag
            ),
            "/metrics": lambda now: HttpAnswer(body=now.metrics, content_type=metrics.CONTENT_TYPE),
            "/healthz": self._healthz,
            "/readyz": self._readyz,
        }

    def answer(self, path: str) -> HttpAnswer:
        """What to say to a GET of `path`."""
        page = self._pages.get(path)
        if page is not None:
            return page(self._bridge.snapshot())
        if path in self._static:
            return self._static[path]
        known = ", ".join(sorted(self._pages))
        return refuse(
            Refusal(
                status=404,
                code="NOT_FOUND",
                what="Nothing is served at this path.",
                fix=f"the paths are {known}",
            )
        )

    def _healthz(self, now: Snapshot) -> HttpAnswer:
        silent_s = self._bridge.silent_s
        return _health(
            silent_s < SILENT_S,
            now.source.as_of,
            f"the swarm side has published nothing for {silent_s:.0f} s",
        )

    def _readyz(self, now: Snapshot) -> HttpAnswer:
        status = now.source
        if not status.you.peer:
            return _health(False, status.as_of, "not started yet")
        found = bool(status.rounds) or any(peer.connected for peer in status.peers)
        return _health(
            found or status.you.role == "node",
            status.as_of,
            "no peer of the run has been reached yet",
        )


def is_known(header: str, etag: str) -> bool:
    """Whether If-None-Match names `etag` (weak comparison, RFC 9110 13.1.2)."""
    bare = etag.removeprefix("W/")
    return bool(etag) and any(
        one.strip().removeprefix("W/") in (bare, "*") for one in header.split(",")
    )


def respond(answer: HttpAnswer, if_none_match: str = "") -> web.Response:
    """The answer with its headers; 304 without a body where the reader has it already."""
    headers = {
        **SECURITY_HEADERS,
        "Content-Type": answer.content_type,
        "Cache-Control": "no-cache" if answer.etag else "no-store",
    }
    if answer.etag:
        headers["ETag"] = answer.etag
    if answer.status == 405:
        headers["Allow"] = ", ".join(METHODS)
    if is_known(if_none_match, answer.etag):
        return web.Response(status=304, headers=headers)
    return web.Response(status=answer.status, body=answer.body, headers=headers)


class HttpConnection(web.RequestHandler):
    """One client's connection.

    It is dropped when `IDLE_S` pass without an answer of ours: nobody holds a place by saying
    nothing slowly.
    """

    __slots__ = ("_deadline",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(IDLE_S, self.force_close)

    def answered(self) -> None:
        """Another `IDLE_S` from now."""
        self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(IDLE_S, self.force_close)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is the sender's fault: answered in a sentence, not logged.

        Anything else is ours: logged by aiohttp with its cause.
        """
        if status < 500:
            refusal = Refusal(
                status=status,
                code="BAD_REQUEST",
                what="That is no HTTP request, or one with too much in it.",
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
        loop = asyncio.get_running_loop()
        return HttpConnection(
            self,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for no log; its annotation does not say so
            keepalive_timeout=IDLE_S,
            lingering_time=0.0,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=64,
        )


def make_server(
    bridge: Bridge, guard: RequestGuard, intake: ReportQueue | None = None
) -> HttpServer:
    """The server for one event loop; call it in that loop.

    Usage reports go to `intake`, where there is one.
    """
    site = Endpoints(bridge)

    async def handle(request: web.BaseRequest) -> web.Response:
        local = request.transport.get_extra_info("sockname") if request.transport else None
        reporting = intake is not None and request.method == "POST" and request.path in REPORT_PATHS
        method = "GET" if reporting else request.method  # whom we answer does not depend on it
        refusal = guard.check(
            method, request.path_qs, request.headers, str(local[0]) if local else ""
        )
        if intake is not None and reporting and not refusal:
            answer = _verdict(await intake.take(request))
        else:
            answer = refuse(refusal) if refusal else site.answer(request.path)
        response = respond(answer, request.headers.get("If-None-Match", ""))
        if isinstance(request.protocol, HttpConnection):
            request.protocol.answered()
        if refusal or request.body_exists:
            response.force_close()  # what else it sends is not read
        return response

    return HttpServer(handle)
