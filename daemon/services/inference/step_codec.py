"""What a stage makes of the bytes of a step, and the bytes and commitment that it answers."""

from __future__ import annotations

from protocol.errors import PeerFault
from protocol.identity import Signer
from protocol.inference.activations import (
    chunk_digest,
    decode_activations,
    decode_tokens,
    encode_activations,
    split_chunks,
    split_data,
)
from protocol.inference.messages import StepGeneration, Stepped, max_logit_rows
from protocol.inference.model import ModelManifest
from protocol.inference.span import SpanDigests, sign_span
from protocol.inference.stage_generations import Compute
from protocol.ports.stage import Activations, Chunk


class StepCodec:
    """Decodes the steps of one stage, and encodes and signs their results."""

    def __init__(self, manifest: ModelManifest, signer: Signer) -> None:
        self._manifest, self._signer = manifest, signer

    def chunks(self, decision: Compute, request: StepGeneration) -> list[Chunk]:
        """Decode the chunks of a step.

        Raises:
            PeerFault: "malformed" for data that the stage cannot compute.
        """
        values: Chunk
        if decision.layers.first == 0:
            values = decode_tokens(request.data)
            if values.size and not 0 <= values.min() <= values.max() < self._manifest.vocabulary:
                raise PeerFault("malformed", "a token is outside the vocabulary")
        else:
            values = decode_activations(request.data, decision.wire, self._manifest.width)
        if len(values) != sum(request.shapes):
            raise PeerFault(
                "malformed", f"{len(values)} tokens where {sum(request.shapes)} are named"
            )
        logits = self._is_last(decision) and not request.digests_only
        if logits and len(request.shapes) > max_logit_rows(self._manifest.vocabulary):
            raise PeerFault("malformed", f"{len(request.shapes)} rows of logits in one step")
        return split_chunks(values, request.shapes)

    def answer(
        self, decision: Compute, request: StepGeneration, results: list[Activations]
    ) -> tuple[Stepped, SpanDigests]:
        """Return the answer to a step, and the generation's digests up to it.

        The answer has the stage's commitment, where a span ended in the step.
        """
        # Logits decide tokens, and always travel whole.
        wire = "float32" if self._is_last(decision) else decision.wire
        parts: list[bytes] = []
        spans = decision.spans
        given = split_data(request.data, request.shapes)
        for tokens, data, result in zip(request.shapes, given, results, strict=True):
            made = encode_activations(result, wire)
            found = chunk_digest(made)
            spans = spans.add(tokens, chunk_digest(data), found)
            parts.append(found if request.digests_only else made)
        commitment = b""
        if spans.ends_span(decision.spans):
            commitment = sign_span(request.generation, decision.layers, spans, self._signer)
        return Stepped(number=0, data=b"".join(parts), commitment=commitment), spans

    def _is_last(self, decision: Compute) -> bool:
        return decision.layers.stop == self._manifest.layers
