"""The requests of one generation to its stages, each with a deadline."""

from __future__ import annotations

import msgspec
import trio

from daemon.services.inference.connections import StageConnections
from protocol.digest import DIGEST_BYTES, Digest
from protocol.errors import PeerFault, Unreachable
from protocol.inference.activations import WireType, decode_activations
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
    ) -> None:
        self._connections, self._manifest, self._model = connections, manifest, model
        self._name, self.cache_tokens, self._wire = name, cache_tokens, wire
        self._attempts = 0
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
        self._connections.note_time(hop.peer, trio.current_time() - began_s)
        if not isinstance(reply, Stepped):
            raise HopLost(hop, "refused", f"it answered {type(reply).__name__}")
        try:
            self._check(hop, reply.data, shapes, digests_only)
        except PeerFault as fault:
            raise HopLost(hop, "refused", str(fault)) from None
        self.missed.pop(hop.peer, None)
        return reply.data

    async def close(self, opened: OpenHop) -> None:
        """Free a cache, if its stage can be reached soon. Else its lease ends."""
        request = CloseGeneration(number=0, generation=self._name, attempt=opened.attempt)
        try:
            with trio.move_on_after(CLOSE_S):
                # Whatever a stage answers, the generation is over for this client.
                await self._connections.ask(opened.hop.peer, request)
        except Unreachable:
            # The stage is gone, and the cache with it.
            return

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

    def _check(self, hop: Hop, data: bytes, shapes: tuple[int, ...], digests_only: bool) -> None:
        """Raise `PeerFault` for a result of another form."""
        last = hop.layers.stop == self._manifest.layers
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
