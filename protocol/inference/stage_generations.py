"""Which generations a stage holds, and what it does with each request.

Theory of operation. A generation belongs to the peer that opened it. Its cache is reserved at the
beginning, for all the tokens that it may have, so that no generation fails half-way because others
grew. Each request renews the lease, and a generation whose lease ends is closed: a client that
vanished costs its cache for `LEASE_S`. Without a new step, no request renews it beyond `IDLE_S`.

Steps come in order. For a generation that holds `position` tokens:

    request                            answer
    step at `position`                 compute it; it is under way until `computed` or `failed`
    the step under way, again          wait for it
    the last step, again               the stored answer
    any other position                 refused, with the position that follows
    a lower attempt                    refused: superseded
    open, the same attempt             as it is
    open, a higher attempt             a new, empty cache; the old one is closed

So a client that lost an answer repeats the request, and nothing is computed twice. The answer that
waits to be repeated has at most `max_message_bytes`.

The time is an argument, and nothing here computes or sends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from protocol.identity import PeerId
from protocol.inference.activations import WireType
from protocol.inference.layers import LayerRange
from protocol.inference.messages import (
    CloseGeneration,
    OpenGeneration,
    RefusalReason,
    StepGeneration,
)
from protocol.inference.span import SpanDigests

LEASE_S = 30.0
"""A client sends a step every few milliseconds, or renews its lease every ten seconds while it
waits. Three of these may be lost."""

IDLE_S = 300.0
"""The longest time without a new step. A client waits 60 s for layers that nobody serves.

Without a limit, a peer could hold every cache of a stage for good by a message every 30 s.
"""

MAX_GENERATIONS = 1024
"""The most generations of a stage, however small their caches are."""

Key = tuple[PeerId, bytes]
"""The client, and its name for the generation."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The stage refuses; see `Refused`."""

    reason: RefusalReason
    detail: str
    expected: int = 0


class Reserve(msgspec.Struct, frozen=True, kw_only=True):
    """Open a cache called `cache`, after `replaced` was closed, where it is not empty."""

    cache: bytes
    replaced: bytes = b""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The generation is open already, at this position."""

    position: int


class Compute(msgspec.Struct, frozen=True, kw_only=True):
    """Compute the step in this cache, and call `computed` or `failed`."""

    cache: bytes
    layers: LayerRange
    wire: WireType
    # The digests of what was computed before.
    spans: SpanDigests = SpanDigests()


class Wait(msgspec.Struct, frozen=True):
    """The same step is under way; ask again when it is over."""


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """The step was computed; this was the answer."""

    answer: Any


class _Generation(msgspec.Struct, kw_only=True):
    cache: bytes
    attempt: int
    layers: LayerRange
    cache_tokens: int
    wire: WireType
    lease_end_s: float
    # When it was opened, or when its last step was computed.
    advanced_s: float
    position: int = 0
    # The step under way: its position and tokens.
    under_way: tuple[int, int] | None = None
    # The last step, and its answer.
    last: tuple[int, int] | None = None
    answer: Any = None
    spans: SpanDigests = SpanDigests()
    # Before the last step, whose answer the client may not have seen.
    spans_before: SpanDigests = SpanDigests()

    def renew(self, now_s: float) -> None:
        """Renew the lease, as far as `IDLE_S` permits."""
        self.lease_end_s = min(now_s + LEASE_S, self.advanced_s + IDLE_S)


class StageGenerations:
    """The generations of one stage."""

    def __init__(
        self, layers: LayerRange, cache_tokens: int, context: int, new_name: Callable[[], bytes]
    ) -> None:
        """
        Args:
            layers: the layers that the stage holds.
            cache_tokens: the tokens that all caches together may hold.
            context: the most tokens of one generation.
            new_name: returns a name that no cache had before.
        """
        self._layers, self._cache_tokens, self._context = layers, cache_tokens, context
        self._new_name = new_name
        self._open: dict[Key, _Generation] = {}

    @property
    def cache_tokens_free(self) -> int:
        """The tokens that no generation has reserved."""
        return self._cache_tokens - sum(one.cache_tokens for one in self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self, client: PeerId, request: OpenGeneration, now_s: float
    ) -> Reserve | Held | Refusal:
        """Decide about a request to open a generation."""
        known = self._open.get((client, request.generation))
        if known is not None and request.attempt < known.attempt:
            return _superseded(known)
        if known is not None and request.attempt == known.attempt:
            known.renew(now_s)
            return Held(position=known.position)
        if not self._layers.contains(request.layers):
            return Refusal(
                reason="range", detail=f"layers {request.layers} are not in {self._layers}"
            )
        if request.cache_tokens > self._context:
            detail = f"{request.cache_tokens} tokens where the model takes {self._context}"
            return Refusal(reason="malformed", detail=detail)
        free = self.cache_tokens_free + (known.cache_tokens if known else 0)
        if request.cache_tokens > free or (known is None and len(self._open) >= MAX_GENERATIONS):
            detail = f"{request.cache_tokens} tokens of cache are asked for, {free} are free"
            return Refusal(reason="full", detail=detail)
        made = _Generation(
            cache=self._new_name(),
            attempt=request.attempt,
            layers=request.layers,
            cache_tokens=request.cache_tokens,
            wire=request.wire,
            lease_end_s=now_s + LEASE_S,
            advanced_s=now_s,
        )
        self._open[client, request.generation] = made
        return Reserve(cache=made.cache, replaced=known.cache if known else b"")

    def step(
        self, client: PeerId, request: StepGeneration, now_s: float
    ) -> Compute | Wait | Repeat | Refusal:
        """Decide about a step."""
        known = self._open.get((client, request.generation))
        if known is None or request.attempt > known.attempt:
            return Refusal(reason="unknown", detail="the stage holds no such generation")
        if request.attempt < known.attempt:
            return _superseded(known)
        known.renew(now_s)
        step = (request.position, sum(request.shapes))
        if known.under_way is not None:
            if step == known.under_way:
                return Wait()
            return _out_of_order(known, f"step {known.under_way[0]} is under way")
        if step == known.last:
            return Repeat(answer=known.answer)
        if request.position != known.position:
            return _out_of_order(known, f"position {request.position} does not follow")
        if known.position + step[1] > known.cache_tokens:
            detail = f"{known.position} + {step[1]} tokens in a cache of {known.cache_tokens}"
            return Refusal(reason="malformed", detail=detail)
        known.under_way = step
        return Compute(cache=known.cache, layers=known.layers, wire=known.wire, spans=known.spans)

    def computed(
        self, cache: bytes, answer: Any, now_s: float, spans: SpanDigests | None = None
    ) -> None:
        """Take in the answer of the step under way. A cache that was closed meanwhile is none.

        `spans` has the digests up to this step.
        """
        for known in self._open.values():
            if known.cache == cache and known.under_way is not None:
                known.last, known.answer = known.under_way, answer
                known.position += known.under_way[1]
                known.spans_before, known.spans = known.spans, spans or known.spans
                known.under_way, known.advanced_s = None, now_s
                known.renew(now_s)

    def failed(self, cache: bytes) -> None:
        """Forget a generation whose cache is lost or in doubt."""
        for key in [key for key, known in self._open.items() if known.cache == cache]:
            del self._open[key]

    def close(self, client: PeerId, request: CloseGeneration) -> bytes:
        """End a generation. Returns the cache to close; empty where there is none.

        A generation of a later attempt stays.
        """
        known = self._open.get((client, request.generation))
        if known is None or request.attempt < known.attempt:
            return b""
        del self._open[client, request.generation]
        return known.cache

    def spans_of(self, client: PeerId, request: CloseGeneration) -> tuple[SpanDigests, ...]:
        """Return the digests that a client may have of a generation that is about to be closed.

        A client that leaves in the middle of a step has those before it. Empty without a
        generation.
        """
        known = self._open.get((client, request.generation))
        if known is None or known.attempt != request.attempt:
            return ()
        return known.spans, known.spans_before

    def expire(self, now_s: float) -> list[bytes]:
        """End the generations whose lease is over. Returns the caches to close.

        A generation with a step under way stays: its client may wait for a slow answer.
        """
        over = [
            key
            for key, known in self._open.items()
            if known.lease_end_s <= now_s and known.under_way is None
        ]
        return [self._open.pop(key).cache for key in over]

    def clear(self) -> None:
        """Forget all generations, as after the death of the process that held them."""
        self._open.clear()


def _superseded(known: _Generation) -> Refusal:
    return Refusal(reason="superseded", detail=f"attempt {known.attempt} is open")


def _out_of_order(known: _Generation, why: str) -> Refusal:
    return Refusal(
        reason="position",
        detail=f"{why}; position {known.position} follows",
        expected=known.position,
    )
