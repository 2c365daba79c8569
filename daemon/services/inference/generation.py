"""One generation: the hub through which the input of each stage passes.

The client sends a chunk through the chain, hop by hop, and chooses the next token itself, with
random numbers that depend on the request's seed and the token's place alone. A hop may be lost at
any point. The chain then replaces it at the position that was completed, and the chunk under way
goes on from the hop that was lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np
import trio

from daemon.services.inference.chain import Chain, Patience, Recovery
from daemon.services.inference.hop_calls import HopCalls, HopLost
from daemon.services.inference.receipt_book import GenerationTokens
from daemon.services.inference.stage_audit import StageAuditor
from protocol.errors import UserError
from protocol.generation.sampler import Logits, SamplingRules, choose_token
from protocol.inference.activations import (
    WireType,
    chunk_digest,
    decode_activations,
    encode_tokens,
)
from protocol.inference.audit import AUDIT_SHARE, StageAudited, is_drawn
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.inference.recovery_events import GenerationEvent
from protocol.inference.replay_log import ReplayLog

PREFILL_TOKENS = 128
"""The tokens of one chunk of a prompt. A stage computes them about as fast as a longer chunk, and
other generations wait for one chunk at most."""

CLOSE_S = 2.0

Finish = Literal["", "stop", "length"]


class GenerationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a generation runs, beside what it says."""

    wire: WireType = "float32"
    recovery: Recovery = "exact"
    patience: Patience = Patience()
    # The share of answers whose stages are audited at the end.
    audit_share: float = AUDIT_SHARE


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. `prompt` has at least one token."""

    prompt: tuple[int, ...]
    max_tokens: int
    rules: SamplingRules
    end_tokens: frozenset[int] = frozenset()


ChainFactory = Callable[
    [HopCalls, ReplayLog, Callable[[GenerationEvent], None], GenerationOptions], Chain
]
CallsFactory = Callable[[bytes, int, WireType], HopCalls]
AuditorFactory = Callable[[Callable[[], HopCalls], ReplayLog, GenerationOptions], StageAuditor]


class GenerationParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a client gives to each of its generations."""

    manifest: ModelManifest
    make_calls: CallsFactory
    make_chain: ChainFactory
    make_auditor: AuditorFactory


class Generation:
    """Makes the tokens of one answer. Use it as `async with`, which frees the caches at the end."""

    def __init__(
        self,
        parts: GenerationParts,
        request: GenerationRequest,
        options: GenerationOptions,
        report: Callable[[GenerationEvent], None],
    ) -> None:
        """
        Raises:
            UserError: "PROMPT" for a prompt that does not fit the model.
        """
        manifest = parts.manifest
        _check(manifest, request)
        self._manifest, self._request, self._options = manifest, request, options
        # The last token of an answer is never sent.
        room = min(manifest.context, len(request.prompt) + request.max_tokens - 1)
        self._log = ReplayLog(manifest.layers)
        calls = parts.make_calls(os.urandom(16), room, options.wire)
        self._chain = parts.make_chain(calls, self._log, report, options)
        self._parts, self._report = parts, report
        self._last_logits = np.zeros((1, 0), np.float32)
        self._calls = calls
        self._room = room
        self._position = 0
        self._built = False
        self.tokens: list[int] = []
        self.finish: Finish = ""

    @property
    def exact(self) -> bool:
        """Whether every replay so far had the bits of what it replaced."""
        return self._chain.exact

    @property
    def replays(self) -> int:
        return self._chain.replays

    @property
    def peers(self) -> tuple[str, ...]:
        """The stages of the chain now, in order."""
        return self._chain.peers

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.move_on_after(CLOSE_S) as scope:
            scope.shield = True
            await self._chain.aclose(
                GenerationTokens(prompt=self._request.prompt, answer=self.tokens)
            )

    async def next_token(self) -> int | None:
        """Make the next token; None at the end, which `finish` explains.

        A token that ends the text is not returned.

        Raises:
            UserError: "NO_STAGE" or "STAGES_FULL" where no chain could be made in time.
        """
        if self.finish:
            return None
        if not self._built:
            whole = LayerRange(first=0, stop=self._manifest.layers)
            await self._chain.build(whole, 0, self._options.patience.start_s)
            self._built = True
        logits = await self._next_logits()
        token = choose_token(logits, self._request.rules, len(self.tokens))
        if token in self._request.end_tokens:
            self.finish = "stop"
            return None
        self.tokens.append(token)
        if len(self.tokens) == self._request.max_tokens or self._position >= self._room:
            self.finish = "length"
        return token

    async def audit(self) -> tuple[StageAudited, ...]:
        """Audit the stages of an answer, where its last result draws it. Reports each audit.

        An answer with a replay is left out: its results come from several stages, and the replay
        has compared them already. An answer that has not begun has nothing to audit.
        """
        if not self.tokens or self.replays:
            return ()
        if not is_drawn(self._log.last_digest(), self._options.audit_share):
            return ()

        def further() -> HopCalls:
            return self._parts.make_calls(os.urandom(16), self._position, self._options.wire)

        auditor = self._parts.make_auditor(further, self._log, self._options)
        made: list[StageAudited] = []
        for hop in self._chain.hops:
            made.append(await auditor.audit(hop, self._position, self._last_logits))
            self._report(made[-1])
        return tuple(made)

    async def _next_logits(self) -> Logits:
        prompt = self._request.prompt
        if self.tokens:
            return await self._forward(self.tokens[-1:], wants_logits=True)
        for start in range(0, len(prompt), PREFILL_TOKENS):
            chunk = prompt[start : start + PREFILL_TOKENS]
            last = start + len(chunk) == len(prompt)
            logits = await self._forward(chunk, wants_logits=last)
        return logits

    async def _forward(self, tokens: Sequence[int], *, wants_logits: bool) -> Logits:
        """Send one chunk through the chain. Returns the logits of its last token."""
        count, layers = len(tokens), self._manifest.layers
        data = encode_tokens(np.array(tokens, np.int32))
        self._log.add(0, count, data)
        boundary, began_s = 0, trio.current_time()
        while boundary < layers:
            opened = self._chain.hop_at(boundary)
            stop = opened.hop.layers.stop
            digests_only = stop == layers and not wants_logits
            try:
                data_out = await self._calls.step(
                    opened, self._position, (count,), data, digests_only=digests_only
                )
            except HopLost as lost:
                self._check_patience(lost, began_s)
                await self._chain.replace(lost, self._position, self._options.patience.resume_s)
                continue
            if digests_only:
                self._log.add_digest(layers, count, data_out)
            elif stop == layers:
                self._log.add_digest(layers, count, chunk_digest(data_out))
            else:
                self._log.add(stop, count, data_out)
            boundary, data = stop, data_out
        self._position += count
        if not wants_logits:
            return np.zeros(0, np.float32)
        self._last_logits = decode_activations(data, "float32", self._manifest.vocabulary)
        logits: Logits = self._last_logits[0]
        return logits

    def _check_patience(self, lost: HopLost, began_s: float) -> None:
        """Give up a token that a slow stage does not finish, and that no other stage can make."""
        waited_s = trio.current_time() - began_s
        if lost.kind == "slow" and waited_s > self._options.patience.resume_s:
            raise UserError(
                "STAGE_SLOW",
                f"A stage did not answer for {waited_s:.0f} s, and no other serves its layers"
                f" {lost.hop.layers}.",
                why=lost.detail,
                fix="try again, or add a stage with these layers: hypergpud serve",
            )


def _check(manifest: ModelManifest, request: GenerationRequest) -> None:
    tokens = len(request.prompt)
    if not 1 <= tokens <= manifest.context:
        raise UserError(
            "PROMPT",
            f"The prompt has {tokens} tokens; the model takes 1 to {manifest.context}.",
            fix="shorten the prompt" if tokens else "give a prompt",
            exit_code=2,
        )
    if (largest := max(request.prompt)) >= manifest.vocabulary:
        # The tokenizer's file comes from a stage, and may have more tokens than the model.
        raise UserError(
            "PROMPT",
            f"The prompt has the token {largest}, and the model {manifest.name} has"
            f" {manifest.vocabulary} tokens.",
            why="the model's tokenizer does not fit the model",
            fix="change the prompt, or use another model",
            exit_code=2,
        )
    if request.max_tokens < 1 or min(request.prompt) < 0:
        raise ValueError("max_tokens below 1, or a token below 0")
