"""What one client owes to stages: it counts their work, and signs receipts for it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from protocol.digest import Digest
from protocol.identity import PeerId, Signer
from protocol.inference.activations import encode_tokens
from protocol.inference.receipt import (
    ServiceReceipt,
    encode_receipt,
    extend_tokens,
    sign_receipt,
)
from protocol.inference.span import SpanDigests


class HopWork(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage computed of one generation."""

    layers: int
    spans: SpanDigests = SpanDigests()
    seconds: float = 0.0


class GenerationTokens(msgspec.Struct, frozen=True, kw_only=True):
    """The token ids of a generation that ends."""

    prompt: Sequence[int]
    answer: Sequence[int]


class ReceiptBook:
    """The receipts of one session: one process, with one model.

    Only generations that a stage held to their end count. Else a stage that restarts, and has
    forgotten what it computed, would refuse all later receipts.
    """

    def __init__(self, model: Digest, session: PeerId, payer: Signer) -> None:
        """
        Args:
            model: the model's name.
            session: the peer id by which stages know this process.
            payer: signs the receipts; the key of this home.
        """
        self._model, self._session, self._payer = model, session, payer
        self._stages: dict[PeerId, ServiceReceipt] = {}

    def receipt(
        self, stage: PeerId, generation: bytes, work: HopWork, tokens: GenerationTokens
    ) -> bytes:
        """Return the signed receipt of a stage at the end of a generation.

        It covers everything that the stage did in this session.
        """
        before = self._of(stage)
        prompt, answer = (np.array(ids, np.int32) for ids in (tokens.prompt, tokens.answer))
        made = msgspec.structs.replace(
            self._added(before, work, 1),
            prompts=extend_tokens(before.prompts, encode_tokens(prompt)),
            answers=extend_tokens(before.answers, encode_tokens(answer)),
            generation=generation,
            inputs=work.spans.inputs,
            outputs=work.spans.outputs,
        )
        self._stages[stage] = made
        return encode_receipt(sign_receipt(made, self._payer))

    def take_back(self, stage: PeerId, work: HopWork) -> None:
        """Leave out work whose receipt did not arrive."""
        self._stages[stage] = self._added(self._of(stage), work, -1)

    def _added(self, before: ServiceReceipt, work: HopWork, sign: int) -> ServiceReceipt:
        return msgspec.structs.replace(
            before,
            requests=before.requests + sign,
            tokens=before.tokens + sign * work.spans.tokens,
            layer_tokens=before.layer_tokens + sign * work.spans.tokens * work.layers,
            busy_ms=before.busy_ms + sign * round(1000 * work.seconds),
        )

    def _of(self, stage: PeerId) -> ServiceReceipt:
        return self._stages.get(stage) or ServiceReceipt(
            model=self._model,
            payer=self._payer.peer,
            stage=stage,
            session=self._session,
            requests=0,
            tokens=0,
            layer_tokens=0,
            busy_ms=0,
        )
