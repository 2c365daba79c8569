"""Audits the stages of a finished generation: another holder repeats each hop by one prefill."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from daemon.services.inference.hop_calls import HopCalls, HopLost, OpenHop
from daemon.services.inference.stage_choice import StageChoice
from protocol.identity import PeerId
from protocol.inference.activations import WireType, decode_activations
from protocol.inference.audit import StageAudited, judge
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest
from protocol.inference.replay_log import ReplayLog
from protocol.inference.routing import Holder, Hop
from protocol.ports.stage import Activations


class StageAuditor:
    """Compares the results of one generation with those of other holders."""

    def __init__(
        self,
        manifest: ModelManifest,
        choice: StageChoice,
        make_calls: Callable[[], HopCalls],
        log: ReplayLog,
        wire: WireType,
    ) -> None:
        """`make_calls` begins a further generation, with a name of its own."""
        self._manifest, self._choice, self._make_calls = manifest, choice, make_calls
        self._log, self._wire = log, wire

    async def audit(self, hop: Hop, tokens: int, last_logits: Activations) -> StageAudited:
        """Audit one hop that computed all of `tokens` tokens.

        Args:
            last_logits: the generation's last logits, shape (1, vocabulary). They depend on every
                position of the last hop, whose other results are not kept.
        """
        results: list[tuple[PeerId, Activations]] = []
        expected = self._expected(hop.layers, tokens, last_logits)
        for holder in self._others(hop):
            made = await self._repeat(hop.layers, holder, tokens)
            if made is None:
                continue
            results.append((holder.peer, made))
            third = results[1][1] if len(results) > 1 else None
            error, verdict = judge(expected, results[0][1], third, self._wire)
            if verdict != "disputed" or third is not None:
                break
        if not results:
            return StageAudited(
                peer=hop.peer, layers=hop.layers, auditor="", error=0.0, verdict="unaudited"
            )
        audited = StageAudited(
            peer=hop.peer,
            layers=hop.layers,
            auditor=results[0][0],
            error=error,
            verdict=verdict,
        )
        if audited.wrong:
            self._choice.distrust(audited.wrong)
        return audited

    def _others(self, hop: Hop) -> list[Holder]:
        """Return the other holders of these layers, those with the same kernel first."""
        able = [
            holder
            for holder in self._choice.holders()
            if holder.peer != hop.peer and holder.layers.contains(hop.layers)
        ]
        return sorted(able, key=lambda one: (one.kernel != hop.kernel, one.rtt_s, one.peer))

    def _expected(self, layers: LayerRange, tokens: int, last_logits: Activations) -> Activations:
        if layers.stop == self._manifest.layers:
            return last_logits
        data = self._log.data(layers.stop, tokens)
        return decode_activations(data, self._wire, self._manifest.width)

    async def _repeat(self, layers: LayerRange, holder: Holder, tokens: int) -> Activations | None:
        """Return the results of another holder; None where the holder fails."""
        calls, last = self._make_calls(), layers.stop == self._manifest.layers
        hop = Hop(
            peer=holder.peer,
            layers=layers,
            kernel=holder.kernel,
            token_s=len(layers) / holder.layer_tokens_per_s,
        )
        opened: OpenHop | None = None
        rows: list[Activations] = []
        try:
            opened = await calls.open(hop)
            for step in self._log.steps(layers.first, layers.stop, tokens, merged=True):
                ends = step.position + sum(step.shapes) == tokens
                data = await calls.step(
                    opened,
                    step.position,
                    step.shapes,
                    step.data,
                    digests_only=last and not ends,
                )
                if not last:
                    rows.append(decode_activations(data, self._wire, self._manifest.width))
                elif ends:
                    rows = [decode_activations(data, "float32", self._manifest.vocabulary)]
        except HopLost:
            return None
        finally:
            if opened is not None:
                await calls.close(opened)
        return np.concatenate(rows)
