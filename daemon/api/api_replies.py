"""Makes the bodies of answers and errors, as OpenAI's clients read them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from daemon.api.api_requests import TextRequest

_encode = msgspec.json.Encoder().encode
# What each status is called in an error's body.
_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class AnswerEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer ended.

    `exact` is False where a stage was replaced by one whose results differ in the last bits.
    """

    finish: Literal["stop", "length"]
    tokens: int
    exact: bool
    replays: int


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """What all parts of an answer repeat. `created` is in seconds since 1970."""

    id: str
    model: str
    created: int
    # Names the model by content, and so more exactly than `model`.
    fingerprint: str


def whole_answer(request: TextRequest, head: AnswerHead, text: str, end: AnswerEnd) -> bytes:
    """Return the body of an answer that is not a stream."""
    kind = "chat.completion" if request.is_chat else "text_completion"
    content: dict[str, Any] = (
        {"message": {"role": "assistant", "content": text}} if request.is_chat else {"text": text}
    )
    choice = {"index": 0, **content, "finish_reason": end.finish, "logprobs": None}
    return _encode(
        {
            **_head(head, kind),
            "choices": [choice],
            "usage": _usage(request, end),
            "hypergpu": _recovery(end),
        }
    )


def first_part(request: TextRequest, head: AnswerHead) -> bytes | None:
    """Return the body of a stream's first event; None where the stream begins with text."""
    if not request.is_chat:
        return None
    return _part(request, head, {"role": "assistant", "content": ""}, None)


def text_part(request: TextRequest, head: AnswerHead, text: str) -> bytes:
    """Return the body of an event with a piece of the text."""
    return _part(request, head, {"content": text} if request.is_chat else text, None)


def last_parts(request: TextRequest, head: AnswerHead, end: AnswerEnd) -> list[bytes]:
    """Return the bodies of the last events: the end, and the usage where it was asked for."""
    more: dict[str, Any] = {"hypergpu": _recovery(end)}
    parts = [_part(request, head, {} if request.is_chat else "", end.finish, more)]
    if request.include_usage:
        kind = "chat.completion.chunk" if request.is_chat else "text_completion"
        parts.append(_encode({**_head(head, kind), "choices": [], "usage": _usage(request, end)}))
    return parts


def models_body(head: AnswerHead) -> bytes:
    """Return the body of /v1/models."""
    return _encode({"object": "list", "data": [_model(head)]})


def model_body(head: AnswerHead) -> bytes:
    """Return the body of /v1/models/NAME."""
    return _encode(_model(head))


def error_body(status: int, message: str, *, param: str | None = None, code: str = "") -> bytes:
    """Return the body of an error."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return _encode(
        {"error": {"message": message, "type": kind, "param": param, "code": code or None}}
    )


def _model(head: AnswerHead) -> dict[str, Any]:
    return {
        "id": head.model,
        "object": "model",
        "created": head.created,
        "owned_by": "hypergpu",
        "digest": head.fingerprint,
    }


def _head(head: AnswerHead, kind: str) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "system_fingerprint": head.fingerprint,
    }


def _part(
    request: TextRequest,
    head: AnswerHead,
    content: dict[str, str] | str,
    finish: str | None,
    more: dict[str, Any] | None = None,
) -> bytes:
    kind = "chat.completion.chunk" if request.is_chat else "text_completion"
    named = {"delta": content} if request.is_chat else {"text": content}
    choice = {"index": 0, **named, "finish_reason": finish, "logprobs": None}
    return _encode({**_head(head, kind), "choices": [choice], **(more or {})})


def _usage(request: TextRequest, end: AnswerEnd) -> dict[str, int]:
    prompt = len(request.prompt)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": end.tokens,
        "total_tokens": prompt + end.tokens,
    }


def _recovery(end: AnswerEnd) -> dict[str, Any]:
    """Return our own addition: clients of OpenAI ignore fields that they do not know."""
    return {"exact": end.exact, "replays": end.replays}
