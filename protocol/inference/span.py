"""Commitments of stages: what a stage computed of a generation, in signed digests.

A stage keeps running digests of the chunks that came in and went out, as they travelled. Where a
step crosses a multiple of `SPAN_TOKENS`, its answer carries these digests with the stage's
signature. The client keeps the same digests of what it sent and got. It is the hub, so where each
hop's digests are equal to its own, neighbours agree too.
"""

from __future__ import annotations

import msgspec

from protocol.digest import DIGEST_BYTES, Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, verify
from protocol.inference.layers import LayerRange
from protocol.messages.base import UNREADABLE, Hash, Natural, Signature

SPAN_TOKENS = 32
"""The tokens of a span. A signature takes 0.1 ms, and 32 tokens of the smallest model 30 ms."""

MAX_COMMITMENT_BYTES = 512
"""A commitment has about 130 bytes, and its signature 64."""

_DOMAIN = b"hypergpu/span/1\0"
_SIGNED_DOMAIN = b"hypergpu/signed-span/1\0"


class SpanDigests(msgspec.Struct, frozen=True, kw_only=True):
    """Running digests of one generation at one stage, up to `tokens` tokens."""

    tokens: int = 0
    inputs: Digest = bytes(DIGEST_BYTES)
    outputs: Digest = bytes(DIGEST_BYTES)

    def add(self, tokens: int, given: Digest, result: Digest) -> SpanDigests:
        """Return the digests after one more chunk, by the digests of its input and its result."""
        return SpanDigests(
            tokens=self.tokens + tokens,
            inputs=digest(_DOMAIN, self.inputs, given),
            outputs=digest(_DOMAIN, self.outputs, result),
        )

    def ends_span(self, before: SpanDigests) -> bool:
        """Whether a span ended since `before`."""
        return self.tokens // SPAN_TOKENS != before.tokens // SPAN_TOKENS


class _Commitment(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    generation: bytes
    layers: LayerRange
    tokens: Natural
    inputs: Hash
    outputs: Hash


class SignedCommitment(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A commitment as it travels. The client knows what it must say, so only digests travel."""

    inputs: Hash
    outputs: Hash
    signature: Signature


def sign_span(generation: bytes, layers: LayerRange, spans: SpanDigests, signer: Signer) -> bytes:
    """Return the bytes of a stage's commitment to the digests of a generation."""
    return msgspec.msgpack.encode(
        SignedCommitment(
            inputs=spans.inputs,
            outputs=spans.outputs,
            signature=signer.sign(_signed_bytes(generation, layers, spans)),
        )
    )


def check_commitment(
    data: bytes, stage: PeerId, generation: bytes, layers: LayerRange, spans: SpanDigests
) -> None:
    """Check a stage's commitment against the digests that the client has.

    Raises:
        PeerFault: "malformed" for bytes that are no commitment, "bad_proof" where the stage commits
            to other data than it got or sent, "unsigned" for a signature that does not fit.
    """
    try:
        found = msgspec.msgpack.decode(data, type=SignedCommitment)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a commitment of a stage: {error}") from None
    if (found.inputs, found.outputs) != (spans.inputs, spans.outputs):
        what = "inputs" if found.inputs != spans.inputs else "results"
        raise PeerFault(
            "bad_proof", f"its commitment at token {spans.tokens} names other {what} than travelled"
        )
    if not verify(stage, found.signature, _signed_bytes(generation, layers, spans)):
        raise PeerFault("unsigned", "a stage's commitment with another signature")


def _signed_bytes(generation: bytes, layers: LayerRange, spans: SpanDigests) -> bytes:
    return _SIGNED_DOMAIN + msgspec.msgpack.encode(
        _Commitment(
            generation=generation,
            layers=layers,
            tokens=spans.tokens,
            inputs=spans.inputs,
            outputs=spans.outputs,
        )
    )
