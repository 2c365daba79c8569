"""The chain of stages of one generation: built, repaired by exact replay, and closed.

Building a chain and repairing it are one operation: find a route for some layers, open the
generation at each of its stages, and bring them to the generation's position. At the beginning that
position is 0, and there is nothing to replay.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
import trio

from daemon.services.inference.hop_calls import HopCalls, HopLost, OpenHop
from daemon.services.inference.receipt_book import GenerationTokens
from daemon.services.inference.stage_choice import StageChoice
from protocol.digest import DIGEST_BYTES, Digest
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.inference.activations import chunk_digest
from protocol.inference.coverage import name_layers
from protocol.inference.layers import LayerRange
from protocol.inference.recovery_events import (
    GenerationEvent,
    HopsReplayed,
    HopWasLost,
    WaitsForLayers,
)
from protocol.inference.replay_log import LoggedChunk, ReplayLog, ReplayStep
from protocol.inference.routing import Hop, NoRoute, Route
from protocol.inference.stage_generations import LEASE_S

RENEW_S = LEASE_S / 3
# A wait this short needs no words: the directory of a new client fills.
REPORT_AFTER_S = 1.5
# A lost hop is replaced at once; if that fails too, the next tries wait a little.
RETRY_S = 0.25

Recovery = Literal["exact", "fast"]
"""Whether a replay repeats the chunks, or sends them as one: faster, with other last bits."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a generation waits for layers that nobody serves, in seconds."""

    # At the beginning, while the directory fills.
    start_s: float = 10.0
    # In mid-generation.
    resume_s: float = 60.0


class Chain:
    """The stages through which one generation passes."""

    def __init__(
        self,
        choice: StageChoice,
        calls: HopCalls,
        log: ReplayLog,
        report: Callable[[GenerationEvent], None],
        *,
        row_bytes: int,
        recovery: Recovery,
        wait_for_news: Callable[[], Awaitable[None]],
    ) -> None:
        """
        Args:
            row_bytes: the bytes of one token's hidden state on the wire.
            wait_for_news: returns once the directory has changed.
        """
        self._choice, self._calls, self._log, self._report = choice, calls, log, report
        self._row_bytes, self._recovery, self._wait_for_news = row_bytes, recovery, wait_for_news
        self._hops: list[OpenHop] = []
        self._excluded: set[PeerId] = set()
        self._suspects: dict[PeerId, int] = {}
        # When the hops that wait for others last had their leases renewed.
        self._renewed_s = 0.0
        # Whether every replay had the bits of what it replaced.
        self.exact = True
        self.replays = 0

    def hop_at(self, boundary: int) -> OpenHop:
        """Return the hop whose layers begin at a boundary."""
        return next(opened for opened in self._hops if opened.hop.layers.first == boundary)

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The hops of the chain now, in order."""
        return tuple(opened.hop for opened in self._hops)

    @property
    def peers(self) -> tuple[PeerId, ...]:
        return tuple(opened.hop.peer for opened in self._hops)

    async def replace(self, lost: HopLost, tokens: int, wait_s: float) -> None:
        """Put other stages in place of a lost one, at `tokens` tokens.

        A slow stage that no other can replace stays; its next deadline is longer.

        Raises:
            UserError: "NO_STAGE" or "STAGES_FULL", after `wait_s`.
        """
        self._blame(lost)
        layers = lost.hop.layers
        if lost.kind == "slow":
            route = self._route(layers)
            if isinstance(route, Route) and [hop.peer for hop in route.hops] == [lost.hop.peer]:
                return
        began_s = trio.current_time()
        await self.build(layers, tokens, wait_s)
        made = [one for one in self._hops if layers.contains(one.hop.layers)]
        self.replays += 1
        self._report(
            HopsReplayed(
                layers=layers,
                peers=tuple(opened.hop.peer for opened in made),
                tokens=tokens,
                exact=self.exact,
                seconds=trio.current_time() - began_s,
            )
        )

    async def build(self, wanted: LayerRange, tokens: int, wait_s: float) -> None:
        """Open stages for these layers, and bring them to `tokens` tokens.

        Raises:
            UserError: "NO_STAGE" or "STAGES_FULL", after `wait_s`.
        """
        self._renewed_s = trio.current_time()
        end_s = self._renewed_s + wait_s
        report_s = self._renewed_s + REPORT_AFTER_S
        said: NoRoute | None = None
        while True:
            route = self._route(wanted)
            if isinstance(route, NoRoute):
                if route != said and trio.current_time() >= report_s:
                    said = route
                    self._report(WaitsForLayers(missing=route.missing, full=route.full))
                # A new generation that finds no room is refused at once; one that has begun waits.
                if trio.current_time() >= end_s or (route.full and not self._hops):
                    raise _no_route(route, wait_s)
                wake_s = min(end_s, report_s) if said is None else end_s
                await self._wait(wanted, wake_s)
                continue
            try:
                await self._follow(route, wanted, tokens)
                return
            except HopLost as lost:
                self._blame(lost)
                if lost.kind == "full":
                    # The directory knows now, and the next route avoids the stage.
                    continue
                if trio.current_time() >= end_s:
                    raise UserError(
                        "NO_STAGE",
                        f"No stage completed {name_layers([wanted])} within {wait_s:.0f} s.",
                        why=lost.detail,
                        fix="try again; hypergpud serve on another machine adds a stage",
                    ) from None
                await trio.sleep(RETRY_S)

    async def aclose(self, tokens: GenerationTokens) -> None:
        """Free the caches of all hops, where they can be reached, and give them their receipts.

        A stage whose results an audit found wrong gets none.
        """
        async with trio.open_nursery() as nursery:
            for opened in self._hops:
                trusted = not self._choice.is_distrusted(opened.hop.peer)
                nursery.start_soon(self._calls.close, opened, tokens if trusted else None)

    # -------------------------------------------------------------------------------- the replay

    async def _follow(self, route: Route, wanted: LayerRange, tokens: int) -> None:
        """Open and replay each hop of a route. Raises `HopLost`."""
        made: list[OpenHop] = []
        try:
            for hop in route.hops:
                opened = await self._calls.open(hop)
                made.append(opened)
                await self._replay(opened, wanted, tokens)
        except HopLost:
            # The next try opens later attempts; a cache that nobody uses must not wait for its end.
            async with trio.open_nursery() as nursery:
                for opened in made:
                    nursery.start_soon(self._calls.close, opened)
            raise
        kept = [one for one in self._hops if not wanted.contains(one.hop.layers)]
        self._hops = sorted([*kept, *made], key=lambda one: one.hop.layers.first)
        self._log.keep_boundaries({one.hop.layers.first for one in self._hops})

    async def _replay(self, opened: OpenHop, wanted: LayerRange, tokens: int) -> None:
        """Bring one hop to `tokens` tokens, by the chunks that were computed before."""
        hop = opened.hop
        # The results feed the next hop of the route, which is new too.
        inside = hop.layers.stop != wanted.stop
        results: list[LoggedChunk] = []
        merged = self._recovery == "fast"
        for step in self._log.steps(hop.layers.first, hop.layers.stop, tokens, merged=merged):
            data = await self._calls.step(
                opened, step.position, step.shapes, step.data, digests_only=not inside
            )
            chunks = self._split(hop, step, data, inside)
            if not inside and step.expected != tuple(chunk.digest for chunk in chunks):
                self.exact = False
            results += chunks
        if inside:
            self._log.replace(hop.layers.stop, results)

    def _split(self, hop: Hop, step: ReplayStep, data: bytes, whole: bool) -> list[LoggedChunk]:
        """Return the results of a step, chunk by chunk."""
        chunks: list[LoggedChunk] = []
        offset = 0
        for tokens in step.shapes:
            size = tokens * self._row_bytes if whole else DIGEST_BYTES
            part = data[offset : offset + size]
            digest: Digest = chunk_digest(part) if whole else part
            chunks.append(LoggedChunk(tokens=tokens, digest=digest, data=part if whole else b""))
            offset += size
        return chunks

    # ------------------------------------------------------------------------- choice and patience

    def _route(self, wanted: LayerRange) -> Route | NoRoute:
        return self._choice.route(
            wanted,
            self._calls.cache_tokens,
            kernels={one.hop.layers: one.hop.kernel for one in self._hops},
            suspects=self._suspects,
            excluded=self._excluded,
        )

    def _blame(self, lost: HopLost) -> None:
        """Draw the conclusion from a loss that the next route needs."""
        peer = lost.hop.peer
        self._report(
            HopWasLost(peer=peer, layers=lost.hop.layers, kind=lost.kind, detail=lost.detail)
        )
        if lost.kind == "broken":
            self._choice.directory.lose(peer)
        elif lost.kind == "full":
            self._choice.directory.mark_full(peer)
        elif lost.kind == "refused":
            self._excluded.add(peer)
        else:
            self._suspects[peer] = self._suspects.get(peer, 0) + 1

    async def _wait(self, wanted: LayerRange, wake_s: float) -> None:
        """Wait for news of stages. The other hops keep their caches meanwhile."""
        with trio.move_on_at(min(wake_s, self._renewed_s + RENEW_S)):
            await self._wait_for_news()
        if trio.current_time() < self._renewed_s + RENEW_S:
            return
        self._renewed_s = trio.current_time()
        for opened in self._hops:
            if not wanted.contains(opened.hop.layers):
                try:
                    await self._calls.renew(opened)
                except HopLost:
                    # Its next step notices, and replaces it then.
                    continue


def _no_route(route: NoRoute, wait_s: float) -> UserError:
    layers = name_layers(route.missing)
    if route.full:
        return UserError(
            "STAGES_FULL",
            f"The stages of {layers} have no room for this generation.",
            why="the caches of other generations fill them",
            fix="try again later, or ask for fewer tokens",
        )
    first, stop = route.missing[0].first, route.missing[-1].stop
    return UserError(
        "NO_STAGE",
        f"Nobody serves {layers} of the model.",
        why=f"no stage with {'them' if stop - first > 1 else 'it'} appeared within {wait_s:.0f} s",
        fix=f"hypergpud serve MODEL --layers {first}:{stop} on a machine with the model",
    )
