"""Answers requests over HTTP: the paths, access, and events on a stream. Web thread only."""

from __future__ import annotations

import hmac
import os
import secrets
import time

from aiohttp import web

from daemon.api.answer_queue import AnswerEvent, AnswerFailed, AnswerQueue
from daemon.api.answers import Answers
from daemon.api.api_connection import ApiConnection
from daemon.api.api_replies import (
    AnswerEnd,
    AnswerHead,
    error_body,
    first_part,
    last_parts,
    model_body,
    models_body,
    text_part,
    whole_answer,
)
from daemon.api.api_requests import BadRequest, TextRequest, read_chat, read_completion
from protocol.digest import SHOWN_DIGITS
from protocol.inference.model import model_name

# A stream without text for this long gets a comment, so that neither side takes it for dead while
# a stage is replaced.
HEARTBEAT_S = 2.0
HEARTBEAT = b": waiting for the next token\n\n"
LAST_EVENT = b"data: [DONE]\n\n"
# A client that is refused for lack of room comes back after this.
RETRY_S = "1"
JSON = "application/json"
EVENTS = "text/event-stream"
MODELS = "/v1/models"
READERS = {"/v1/chat/completions": read_chat, "/v1/completions": read_completion}


class ApiHandlers:
    """The handler of all requests."""

    def __init__(self, answers: Answers, key: str) -> None:
        """`key` is what clients send as a bearer token."""
        self._answers, self._key = answers, key.encode()
        self.max_open = answers.max_open
        self._started = int(time.time())
        self._fingerprint = model_name(answers.model).hex()[:SHOWN_DIGITS]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        connection = request.protocol
        try:
            self._check_access(request)
            if isinstance(connection, ApiConnection):
                connection.busy()
            if request.path == MODELS or request.path.startswith(f"{MODELS}/"):
                return self._models(request)
            if request.path not in READERS:
                raise BadRequest(f"There is no {request.path} here.", status=404)
            if request.method != "POST":
                raise BadRequest(f"{request.path} takes POST.", status=405)
            return await self._text(request)
        except BadRequest as refused:
            return _refusal(refused)
        finally:
            if isinstance(connection, ApiConnection) and connection.idle_since is None:
                connection.idle()

    def _check_access(self, request: web.BaseRequest) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            given.strip().encode("utf-8", "surrogateescape"), self._key
        ):
            raise BadRequest(
                "Send this server's key as a bearer token; hypergpud api shows where the key is.",
                status=401,
                code="invalid_api_key",
            )

    def _models(self, request: web.BaseRequest) -> web.Response:
        if request.method != "GET":
            raise BadRequest(f"{request.path} takes GET.", status=405)
        head = self._head("")
        if request.path == MODELS:
            return web.Response(body=models_body(head), content_type=JSON)
        wanted = request.path.removeprefix(f"{MODELS}/")
        if wanted != head.model:
            raise BadRequest(
                f"The model {wanted!r} is not served here; {head.model!r} is.",
                status=404,
                code="model_not_found",
            )
        return web.Response(body=model_body(head), content_type=JSON)

    async def _text(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise BadRequest(f"The body is too large: {error.text}.", status=413) from None
        except web.RequestPayloadError:
            raise BadRequest("The body is not what its headers say.") from None
        seed = int.from_bytes(os.urandom(8), "little") >> 1
        read = READERS[request.path]
        wanted = read(body, self._answers.model, self._answers.tokenizer, seed)
        answer = self._answers.begin(wanted)
        try:
            head = self._head("chatcmpl-" if wanted.is_chat else "cmpl-")
            if wanted.is_stream:
                return await _stream(request, wanted, head, answer)
            return await _whole(wanted, head, answer)
        finally:
            # Also where the client has gone: aiohttp cancels this task.
            answer.cancel()

    def _head(self, prefix: str) -> AnswerHead:
        return AnswerHead(
            id=f"{prefix}{secrets.token_hex(12)}",
            model=self._answers.model.name,
            created=int(time.time()) if prefix else self._started,
            fingerprint=self._fingerprint,
        )


async def _whole(wanted: TextRequest, head: AnswerHead, answer: AnswerQueue) -> web.Response:
    text = ""
    while True:
        match await answer.next_event(HEARTBEAT_S):
            case str(piece):
                text += piece
            case AnswerEnd() as end:
                return web.Response(body=whole_answer(wanted, head, text, end), content_type=JSON)
            case AnswerFailed(status=status, code=code, message=message):
                raise BadRequest(message, status=status, code=code)


async def _stream(
    request: web.BaseRequest, wanted: TextRequest, head: AnswerHead, answer: AnswerQueue
) -> web.StreamResponse:
    # The status of a stream is sent before its text, so an early error still has a status.
    event = await answer.next_event(HEARTBEAT_S)
    if isinstance(event, AnswerFailed):
        raise BadRequest(event.message, status=event.status, code=event.code)
    response = web.StreamResponse(headers={"Cache-Control": "no-store"})
    response.content_type = EVENTS
    try:
        await response.prepare(request)
        await _write_events(response, wanted, head, answer, event)
    except ConnectionResetError:
        # The client has gone, and its answer is cancelled: nobody reads an error.
        return response
    return response


async def _write_events(
    response: web.StreamResponse,
    wanted: TextRequest,
    head: AnswerHead,
    answer: AnswerQueue,
    event: AnswerEvent | None,
) -> None:
    """Write the events of an answer to its end. Raises `ConnectionResetError` without a reader."""
    if (first := first_part(wanted, head)) is not None:
        await response.write(_event(first))
    while True:
        match event:
            case None:
                await response.write(HEARTBEAT)
            case str(piece):
                await response.write(_event(text_part(wanted, head, piece)))
            case AnswerEnd() as end:
                for part in last_parts(wanted, head, end):
                    await response.write(_event(part))
                await response.write(LAST_EVENT)
                break
            case AnswerFailed(status=status, code=code, message=message):
                await response.write(_event(error_body(status, message, code=code)))
                break
        event = await answer.next_event(HEARTBEAT_S)
    await response.write_eof()


def _event(body: bytes) -> bytes:
    return b"data: " + body + b"\n\n"


def _refusal(refused: BadRequest) -> web.Response:
    body = error_body(refused.status, refused.message, param=refused.param, code=refused.code)
    headers = {"Retry-After": RETRY_S} if refused.status in (429, 503) else {}
    return web.Response(body=body, status=refused.status, content_type=JSON, headers=headers)
