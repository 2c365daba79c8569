"""The requests of one generation to its stages, each with a deadline."""

from __future__ import annotations

import msgspec
import trio

from daemon.services.inference.connections import StageConnections
from daemon.services.inference.receipt_book import GenerationTokens, HopWork, ReceiptBook
from protocol.digest import DIGEST_BYTES, Digest
from protocol.errors import PeerFault, Unreachable
from protocol.inference.activations import (
    WireType,
    chunk_digest,
    decode_activations,
    split_data,
)
from protocol.inference.messages import (
    CloseGeneration,
    Opened,
    OpenGeneration,
    Refused,
    StageReply,
    StageRequest,
    StepGeneration,
    Stepped,
)
from protocol.inference.model import ModelManifest
from protocol.inference.recovery_events import LossKind
from protocol.inference.routing import Hop
from protocol.inference.span import check_commitment

DETECTION_S = 2.0
"""How long a stage may be silent beyond its predicted time: ten round trips around the world."""

SLACK = 4.0
"""How much longer than predicted a step may take: the machine may compute for others."""

RECONNECT_S = 1.0
"""How long a broken stream may take to come back. After a short break, the stage still has all."""

CLOSE_S = 1.0
MAX_DEADLINE_S = 120.0

_KINDS: dict[str, LossKind] = {
    "full": "full",
    "position": "forgot",
    "superseded": "forgot",
    "unknown": "forgot",
    "range": "refused",
    "malformed": "refused",
}


class HopLost(Exception):
    """A stage cannot go on with the generation."""

    def __init__(self, hop: Hop, kind: LossKind, detail: str) -> None:
        super().__init__(detail)
        self.hop, self.kind, self.detail = hop, kind, detail


class OpenHop(msgspec.Struct, frozen=True, kw_only=True):
    """A hop of the chain, and the attempt under which its stage holds the generation."""

    hop: Hop
    attempt: int


class HopCalls:
    """Opens, steps, renews and closes one generation at its stages."""

    def __init__(
        self,
        connections: StageConnections,
        manifest: ModelManifest,
        model: Digest,
        name: bytes,
        cache_tokens: int,
        wire: WireType,
        book: ReceiptBook | None = None,
    ) -> None:
        """`book` counts what each stage does; without it, no receipts are signed."""
        self._connections, self._manifest, self._model = connections, manifest, model
        self._name, self.cache_tokens, self._wire = name, cache_tokens, wire
        self._book = book
        self._attempts = 0
        # What passed each attempt, which its stage must commit to.
        self._work: dict[int, HopWork] = {}
        # The missed deadlines of each stage, each of which doubles the next one.
        self.missed: dict[str, int] = {}

    async def open(self, hop: Hop) -> OpenHop:
        """Reserve a cache under a new attempt. Raises `HopLost`."""
        self._attempts += 1
        opened = OpenHop(hop=hop, attempt=self._attempts)
        await self.renew(opened)
        return opened

    async def renew(self, opened: OpenHop) -> None:
        """Renew the lease of a generation. Raises `HopLost`."""
        hop = opened.hop
        request = OpenGeneration(
            number=0,
            generation=self._name,
            attempt=opened.attempt,
            model=self._model,
            layers=hop.layers,
            cache_tokens=self.cache_tokens,
            wire=self._wire,
        )
        reply = await self._ask(hop, request, self._deadline_s(hop, 0))
        if not isinstance(reply, Opened):
            raise HopLost(hop, "refused", f"it answered {type(reply).__name__}")

    async def step(
        self,
        opened: OpenHop,
        position: int,
        shapes: tuple[int, ...],
        data: bytes,
        *,
        digests_only: bool,
    ) -> bytes:
        """Compute a step. Returns the result's bytes, checked for their form. Raises `HopLost`."""
        hop = opened.hop
        request = StepGeneration(
            number=0,
            generation=self._name,
            attempt=opened.attempt,
            position=position,
            shapes=shapes,
            data=data,
            digests_only=digests_only,
        )
        began_s = trio.current_time()
        reply = await self._ask(hop, request, self._deadline_s(hop, sum(shapes)))
        took_s = trio.current_time() - began_s
        self._connections.note_time(hop.peer, took_s)
        if not isinstance(reply, Stepped):
            raise HopLost(hop, "refused", f"it answered {type(reply).__name__}")
        try:
            self._check(hop, reply.data, shapes, digests_only)
            self._follow(opened, shapes, data, reply, digests_only=digests_only, took_s=took_s)
        except PeerFault as fault:
            raise HopLost(hop, "refused", str(fault)) from None
        self.missed.pop(hop.peer, None)
        return reply.data

    async def close(self, opened: OpenHop, tokens: GenerationTokens | None = None) -> None:
        """Free a cache, if its stage can be reached soon. Else its lease ends.

        `tokens` are those of the whole generation, where the stage gets a receipt.
        """
        peer, work, receipt = opened.hop.peer, self._work.pop(opened.attempt, None), b""
        if tokens is not None and self._book is not None and work is not None:
            receipt = self._book.receipt(peer, self._name, work, tokens)
        request = CloseGeneration(
            number=0, generation=self._name, attempt=opened.attempt, receipt=receipt
        )
        closed = False
        try:
            with trio.move_on_after(CLOSE_S):
                # Whatever a stage answers, the generation is over for this client.
                await self._connections.ask(peer, request)
                closed = True
        except Unreachable:
            # The stage is gone, and the cache with it.
            return
        finally:
            if receipt and not closed and self._book is not None and work is not None:
                self._book.take_back(peer, work)

    def _deadline_s(self, hop: Hop, tokens: int) -> float:
        usual_s = max(tokens * hop.token_s, self._connections.typical_s(hop.peer))
        patience = 1 << min(self.missed.get(hop.peer, 0), 6)
        return min(MAX_DEADLINE_S, (DETECTION_S + SLACK * usual_s) * patience)

    async def _ask(self, hop: Hop, request: StageRequest, deadline_s: float) -> StageReply:
        """Send a request; once more where the stream broke and comes back at once."""
        broken = ""
        for _attempt in range(2):
            try:
                if broken:
                    with trio.move_on_after(RECONNECT_S) as reconnect:
                        await self._connections.reach(hop.peer)
                    if reconnect.cancelled_caught:
                        break
                with trio.move_on_after(deadline_s):
                    reply = await self._connections.ask(hop.peer, request)
                    if isinstance(reply, Refused):
                        raise HopLost(hop, _KINDS[reply.reason], reply.detail)
                    return reply
            except Unreachable as error:
                broken = str(error)
                continue
            self.missed[hop.peer] = self.missed.get(hop.peer, 0) + 1
            raise HopLost(hop, "slow", f"it did not answer for {deadline_s:.1f} s")
        raise HopLost(hop, "broken", broken)

    def _follow(
        self,
        opened: OpenHop,
        shapes: tuple[int, ...],
        data: bytes,
        reply: Stepped,
        *,
        digests_only: bool,
        took_s: float,
    ) -> None:
        """Add a step to the digests of what passed a stage, and check what the stage committed to.

        Raises `PeerFault` where a span ended and its commitment is missing or wrong.
        """
        hop = opened.hop
        before = self._work.get(opened.attempt) or HopWork(layers=len(hop.layers))
        spans = before.spans
        rows = (1,) * len(shapes) if self._is_last(hop) or digests_only else shapes
        results = split_data(reply.data, rows)
        for tokens, given, result in zip(shapes, split_data(data, shapes), results, strict=True):
            made = result if digests_only else chunk_digest(result)
            spans = spans.add(tokens, chunk_digest(given), made)
        if spans.ends_span(before.spans):
            check_commitment(reply.commitment, hop.peer, self._name, hop.layers, spans)
        self._work[opened.attempt] = msgspec.structs.replace(
            before, spans=spans, seconds=before.seconds + took_s
        )

    def _is_last(self, hop: Hop) -> bool:
        return hop.layers.stop == self._manifest.layers

    def _check(self, hop: Hop, data: bytes, shapes: tuple[int, ...], digests_only: bool) -> None:
        """Raise `PeerFault` for a result of another form."""
        last = self._is_last(hop)
        if digests_only:
            rows, got = len(shapes), len(data) / DIGEST_BYTES
        elif last:
            rows = len(shapes)
            got = len(decode_activations(data, "float32", self._manifest.vocabulary))
        else:
            rows = sum(shapes)
            got = len(decode_activations(data, self._wire, self._manifest.width))
        if got != rows:
            raise PeerFault("malformed", f"{got:g} rows where {rows} were asked for")
