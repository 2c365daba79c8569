"""The messages between a client and a stage, on one stream for each pair of them.

The client numbers its requests, and the stage answers each of them once, in any order. The stream
is authenticated, so no message is signed: a generation belongs to the peer that opened it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.errors import PeerFault
from protocol.inference.activations import WireType
from protocol.inference.layers import LayerRange
from protocol.inference.receipt import MAX_RECEIPT_BYTES
from protocol.inference.span import MAX_COMMITMENT_BYTES
from protocol.messages.base import MAX_REASON_CHARS, UNREADABLE, Hash, Natural
from protocol.ports.stage import MAX_CHUNK_TOKENS

GENERATION_BYTES = 16
"""A generation's name is random; two clients may choose the same."""

MAX_STEP_TOKENS = MAX_CHUNK_TOKENS
"""The most tokens of one step, over all its chunks: a replay takes several steps."""

HEADER_BYTES = 1 << 13
"""The most bytes of a message beside its data: 512 shapes of up to 5 bytes, and the names."""

GenerationName = Annotated[bytes, Meta(min_length=GENERATION_BYTES, max_length=GENERATION_BYTES)]
Attempt = Annotated[int, Meta(ge=0, le=1 << 31)]
Shapes = Annotated[
    tuple[Annotated[int, Meta(ge=1, le=MAX_CHUNK_TOKENS)], ...],
    Meta(min_length=1, max_length=MAX_STEP_TOKENS),
]
RefusalReason = Literal[
    # The caches that are open leave too little.
    "full",
    # The stage serves another model, or not these layers.
    "range",
    # The position is not the one that follows; `expected` is.
    "position",
    # The client opened a later attempt.
    "superseded",
    # The stage holds no such generation: its lease ended, or the stage restarted.
    "unknown",
    # The request breaks a rule.
    "malformed",
]


class _Request(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    array_like=True,
    tag=True,
    forbid_unknown_fields=True,
):
    number: Natural
    generation: GenerationName
    attempt: Attempt


class OpenGeneration(_Request, frozen=True, kw_only=True, array_like=True, tag=True):
    """Reserve a cache. A repeat with the same attempt renews the lease.

    A later attempt replaces an earlier one, with an empty cache.
    """

    model: Hash
    layers: LayerRange
    cache_tokens: Annotated[int, Meta(ge=1, le=1 << 31)]
    wire: WireType


class StepGeneration(_Request, frozen=True, kw_only=True, array_like=True, tag=True):
    """Compute chunks, one after the other. A repeat of the last step gets the same answer."""

    # The number of tokens before this step.
    position: Natural
    # The tokens of each chunk, in order.
    shapes: Shapes
    # Token ids at layer 0, else hidden states.
    data: bytes
    # Whether the digest of each chunk's result is enough, as in a replay.
    digests_only: bool = False


class CloseGeneration(_Request, frozen=True, kw_only=True, array_like=True, tag=True):
    """Free the cache."""

    # A signed receipt (`receipt.py`); empty where the client gives none.
    receipt: Annotated[bytes, Meta(max_length=2 * MAX_RECEIPT_BYTES)] = b""


class _Reply(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    array_like=True,
    tag=True,
    forbid_unknown_fields=True,
):
    number: Natural


class Opened(_Reply, frozen=True, kw_only=True, array_like=True, tag=True):
    """The cache is reserved until the lease ends, which each request renews."""

    # The number of tokens that the cache holds.
    position: Natural
    lease_s: float


class Stepped(_Reply, frozen=True, kw_only=True, array_like=True, tag=True):
    """The result of a step: hidden states, logits of each chunk's last token, or digests."""

    data: bytes
    # The stage's commitment (`span.py`), where a span ended in this step.
    commitment: Annotated[bytes, Meta(max_length=MAX_COMMITMENT_BYTES)] = b""


class Closed(_Reply, frozen=True, kw_only=True, array_like=True, tag=True):
    """The cache is free."""


class Refused(_Reply, frozen=True, kw_only=True, array_like=True, tag=True):
    """The stage does not do what was asked."""

    reason: RefusalReason
    detail: Annotated[str, Meta(max_length=MAX_REASON_CHARS)] = ""
    # The position that follows, where the reason is "position".
    expected: Natural = 0


StageRequest = OpenGeneration | StepGeneration | CloseGeneration
StageReply = Opened | Stepped | Closed | Refused

_request_decoder: msgspec.msgpack.Decoder[StageRequest] = msgspec.msgpack.Decoder(StageRequest)
_reply_decoder: msgspec.msgpack.Decoder[StageReply] = msgspec.msgpack.Decoder(StageReply)


def encode(message: StageRequest | StageReply) -> bytes:
    return msgspec.msgpack.encode(message)


def decode_request(data: bytes) -> StageRequest:
    """Decode a client's message. Raises `PeerFault("malformed")`."""
    try:
        request = _request_decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a request to a stage: {error}") from None
    if isinstance(request, StepGeneration) and sum(request.shapes) > MAX_STEP_TOKENS:
        raise PeerFault("malformed", f"a step of {sum(request.shapes)} tokens")
    return request


def decode_reply(data: bytes) -> StageReply:
    """Decode a stage's message. Raises `PeerFault("malformed")`."""
    try:
        return _reply_decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a reply of a stage: {error}") from None


def max_message_bytes(width: int, vocabulary: int) -> int:
    """Return the most bytes of a message about a model.

    A step returns rows of hidden states, or one row of logits for each chunk. A stage refuses steps
    with more chunks than `max_logit_rows`.
    """
    return HEADER_BYTES + 4 * max(MAX_STEP_TOKENS * width, max_logit_rows(vocabulary) * vocabulary)


def max_request_bytes(width: int) -> int:
    """Return the most bytes of a client's message: a step with rows of hidden states."""
    return HEADER_BYTES + 4 * MAX_STEP_TOKENS * width


def max_logit_rows(vocabulary: int) -> int:
    """Return the most rows of logits that one step may return: 1 MiB, and at least one row.

    A client needs one row. The stage keeps each generation's last answer, so more rows would let
    small caches fill its memory.
    """
    return max(1, min(MAX_STEP_TOKENS, (1 << 20) // (4 * vocabulary)))
