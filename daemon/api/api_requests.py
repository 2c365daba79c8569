"""Reads the bodies of requests (https://platform.openai.com/docs/api-reference).

A field that would change the answer and that this server does not support is refused, unless it has
the value that changes nothing. Unknown fields are ignored, because clients send new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from protocol.generation.sampler import SamplingRules
from protocol.inference.model import ModelManifest
from protocol.ports.stage import ChatMessage, Tokenizer

# Each level of nesting takes a part of the stack. Some libraries lift Python's limit so far that a
# body of brackets alone overflowed the stack and ended the process.
MAX_OPENINGS = 10_000
# OpenAI's limits.
MAX_STOPS, MAX_TEMPERATURE = 4, 2.0
MAX_STOP_CHARS = 256
# The default of /v1/completions. That of a chat is what the model's context leaves.
COMPLETION_TOKENS = 16
# With a top_p of 0, OpenAI takes the likeliest token; our sampler's smallest value does the same.
SMALLEST_TOP_P = 1e-9
_SEEDS = 1 << 63

# Fields that are not supported, and the values of them that change nothing.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "functions": ([],),
    "echo": (False,),
    "suffix": ("",),
    "audio": (),
}


class BadRequest(Exception):
    """A request that is refused. `param` names the field, `status` is of HTTP."""

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400, code: str = ""
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code


class TextPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream has beside the text."""

    include_usage: bool = False


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that both kinds of requests have."""

    model: str
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class ChatRequest(_Request, frozen=True, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None


Prompt = str | list[int | str | list[int]]
"""A text, its tokens, or a list with one of them."""


class CompletionRequest(_Request, frozen=True, kw_only=True):
    """The body of /v1/completions. `prompt` is one text, or the tokens of one."""

    prompt: Prompt = ""


class TextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is generated for a request."""

    prompt: tuple[int, ...]
    max_tokens: int
    rules: SamplingRules
    stops: tuple[str, ...]
    is_chat: bool
    is_stream: bool
    include_usage: bool


def read_chat(
    body: bytes, model: ModelManifest, tokenizer: Tokenizer, random_seed: int
) -> TextRequest:
    """Read the body of /v1/chat/completions.

    `random_seed` is used where the request has no seed. Raises `BadRequest`.
    """
    request = _decoded(body, ChatRequest)
    _check_model(request.model, model)
    messages = [
        ChatMessage(
            # What OpenAI calls a developer's message now is the system's message of templates.
            role="system" if one.role == "developer" else one.role,
            content=one.content
            if isinstance(one.content, str)
            else "".join(part.text for part in one.content),
        )
        for one in request.messages
    ]
    try:
        prompt = tokenizer.encode(tokenizer.chat(messages))
    except ValueError as error:
        raise BadRequest(f"{error}. Use /v1/completions for this model.", "messages") from None
    limit = request.max_completion_tokens or request.max_tokens or model.context
    return _text_request(request, model, prompt, limit, random_seed, is_chat=True)


def read_completion(
    body: bytes, model: ModelManifest, tokenizer: Tokenizer, random_seed: int
) -> TextRequest:
    """Read the body of /v1/completions. As `read_chat`."""
    request = _decoded(body, CompletionRequest)
    _check_model(request.model, model)
    limit = request.max_tokens or COMPLETION_TOKENS
    prompt = _prompt(request.prompt, model, tokenizer)
    return _text_request(request, model, prompt, limit, random_seed, is_chat=False)


def _text_request(
    request: _Request,
    model: ModelManifest,
    prompt: Sequence[int],
    limit: int,
    random_seed: int,
    *,
    is_chat: bool,
) -> TextRequest:
    tokens = tuple(prompt) or (model.first_token,)
    # The last token of an answer needs no place in the context.
    room = model.context - len(tokens) + 1
    if room < 1:
        raise BadRequest(
            f"The prompt has {len(tokens)} tokens, and the model takes {model.context}.",
            "messages" if is_chat else "prompt",
            code="context_length_exceeded",
        )
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stops) > MAX_STOPS or not all(0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise BadRequest(
            f"stop takes up to {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters.", "stop"
        )
    return TextRequest(
        prompt=tokens,
        max_tokens=min(limit, room),
        rules=SamplingRules(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else max(request.top_p, SMALLEST_TOP_P),
            seed=(random_seed if request.seed is None else request.seed) % _SEEDS,
        ),
        stops=tuple(stops),
        is_chat=is_chat,
        is_stream=bool(request.stream),
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
    )


def _prompt(given: Prompt, model: ModelManifest, tokenizer: Tokenizer) -> list[int]:
    if isinstance(given, list) and given and not isinstance(given[0], int):
        if len(given) > 1:
            raise BadRequest("Send one prompt in each request.", "prompt")
        first = given[0]
        given = first if isinstance(first, str) else list(first)
    if isinstance(given, str):
        return tokenizer.encode(given)
    tokens = [token for token in given if isinstance(token, int)]
    if len(tokens) != len(given) or not all(0 <= token < model.vocabulary for token in tokens):
        raise BadRequest(f"The model's tokens are 0 to {model.vocabulary - 1}.", "prompt")
    return tokens


def _check_model(wanted: str, model: ModelManifest) -> None:
    if wanted != model.name:
        raise BadRequest(
            f"The model {wanted!r} is not served here; {model.name!r} is.",
            "model",
            status=404,
            code="model_not_found",
        )


def _decoded(body: bytes, kind: type[Any]) -> Any:
    if body.count(b"[") + body.count(b"{") > MAX_OPENINGS:
        raise BadRequest(f"The body has more than {MAX_OPENINGS:,} lists and objects.")
    try:
        fields = msgspec.json.decode(body)
        request = msgspec.convert(fields, kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not a valid request: {error}.") from None
    for name, allowed in _UNSUPPORTED.items():
        value = fields.get(name)
        if value is not None and value not in allowed:
            raise BadRequest(f"{name} is not supported.", name, code="unsupported_parameter")
    return request
