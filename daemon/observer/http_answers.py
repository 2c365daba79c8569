"""Answers of the web side: bytes that are ready, refusals, and our own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from types import MappingProxyType

import msgspec
from aiohttp import web

from daemon.observer.api.bodies import ErrorBody, ProbeBody
from daemon.observer.api.docs_page import DOCS_PATH, docs_html
from daemon.observer.api.openapi import OPENAPI_PATH, openapi_document
from daemon.observer.bridge import Bridge
from daemon.observer.endpoints import ENDPOINTS, HTML, JSON, PROBES
from daemon.observer.request_guard import METHODS, SECURITY_HEADERS, Refusal
from protocol.digest import digest

_STATIC_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A body that is ready to send. Clients do not store an answer without an `etag`."""

    body: bytes
    content_type: str
    etag: str = ""
    status: int = 200


def refuse(refusal: Refusal) -> HttpAnswer:
    """Return a refusal as an answer, in JSON with a stable code."""
    return HttpAnswer(
        body=msgspec.json.encode(ErrorBody(error=refusal)), content_type=JSON, status=refusal.status
    )


def static_answers() -> dict[str, HttpAnswer]:
    """Our own style, script and icon by path, read once."""
    answers = {}
    for file in resources.files("daemon.observer").joinpath("static").iterdir():
        content_type = _STATIC_TYPES.get(file.name.rpartition(".")[2])
        if content_type:
            body = file.read_bytes()
            answers[f"/static/{file.name}"] = HttpAnswer(
                body=body, content_type=content_type, etag=f'"{digest(body).hex()[:32]}"'
            )
    # Browsers ask for this path by themselves.
    answers["/favicon.ico"] = answers["/static/icon.svg"]
    return answers


def _fixed(body: bytes, content_type: str) -> HttpAnswer:
    """Return an answer that never changes."""
    return HttpAnswer(body=body, content_type=content_type, etag=f'"{digest(body).hex()[:32]}"')


class AnswerTable:
    """Finds the answer to a GET of a path. Belongs to the web thread."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._static = static_answers()
        self._endpoints = {endpoint.path: endpoint for endpoint in ENDPOINTS}
        described = openapi_document()
        self._openapi = _fixed(msgspec.json.encode(described), JSON)
        self._docs = _fixed(docs_html(described).encode(), HTML)

    def answer(self, path: str) -> HttpAnswer:
        """Return the answer to a GET of `path`; a refusal where nothing is served there."""
        if path in self._static:
            return self._static[path]
        if path == OPENAPI_PATH:
            return self._openapi
        if path == DOCS_PATH:
            return self._docs
        endpoint = self._endpoints.get(path)
        if endpoint is not None:
            now = self._bridge.snapshot()
            return HttpAnswer(
                body=now.body(endpoint),
                content_type=endpoint.content_type,
                etag=now.etag if endpoint.revalidated else "",
            )
        if path in PROBES:
            return self._probe(path)
        return refuse(
            Refusal(
                status=404,
                code="NOT_FOUND",
                what="Nothing is served at this path.",
                fix="/api/openapi.json and /api/docs list the paths, and /metrics the metrics",
            )
        )

    def _probe(self, path: str) -> HttpAnswer:
        status = self._bridge.snapshot().source
        reason = PROBES[path](status, self._bridge.silent_s)
        body = ProbeBody(ok=not reason, as_of=status.as_of, reason=reason)
        return HttpAnswer(
            body=msgspec.json.encode(body), content_type=JSON, status=503 if reason else 200
        )


def etag_matches(header: str, etag: str) -> bool:
    """Return whether If-None-Match names `etag` (weak comparison, RFC 9110 section 13.1.2)."""
    bare = etag.removeprefix("W/")
    return bool(etag) and any(
        one.strip().removeprefix("W/") in (bare, "*") for one in header.split(",")
    )


def respond(
    answer: HttpAnswer,
    if_none_match: str = "",
    more: Mapping[str, str] = MappingProxyType({}),
    methods: Sequence[str] = METHODS,
) -> web.Response:
    """Return the answer with its headers; 304 without a body if the reader has the answer already.

    `more` are further headers; `methods` are those of the path, which a refusal names. Readers
    revalidate an answer with an ETag every time, and store no other answer.
    """
    headers = {
        **SECURITY_HEADERS,
        "Content-Type": answer.content_type,
        "Cache-Control": "no-cache" if answer.etag else "no-store",
        **more,
    }
    if answer.etag:
        headers["ETag"] = answer.etag
    if answer.status == 429:
        headers["Retry-After"] = "1"
    if answer.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if answer.status == 405:
        headers["Allow"] = ", ".join(methods)
    if etag_matches(if_none_match, answer.etag):
        return web.Response(status=304, headers=headers)
    return web.Response(status=answer.status, body=answer.body, headers=headers)
