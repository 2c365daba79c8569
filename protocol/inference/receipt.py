"""Receipts: what a client got from a stage, signed by both.

A receipt is cumulative over one session: the process of one client at one stage. A later receipt
replaces the earlier ones of its session, so a receipt that is lost or counted again changes
nothing. The client signs at the end of a generation, after the audit. It signs nothing for a stage
whose results an audit found wrong. The stage signs when it has compared the digests with its own.

A payer's key is free, and so are receipts of traffic that a stage makes for itself. So a receipt
alone is worth nothing: it counts where somebody pays for this payer's traffic.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.digest import DIGEST_BYTES, Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, verify
from protocol.messages.base import UNREADABLE, Hash, Id, Natural, Signature

MAX_RECEIPT_BYTES = 1024
"""A receipt has about 450 bytes with both signatures."""

_PAYER_DOMAIN = b"hypergpu/receipt/1\0"
_STAGE_DOMAIN = b"hypergpu/countersigned-receipt/1\0"
_TOKENS_DOMAIN = b"hypergpu/tokens/1\0"
NOTHING: Digest = bytes(DIGEST_BYTES)


class ServiceReceipt(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What a stage computed in one session, in all."""

    model: Hash
    payer: Id
    stage: Id
    # The client's peer id of this session.
    session: Id
    # The generations that were closed.
    requests: Natural
    # The tokens that passed the stage, and each times the layers that it passed there.
    tokens: Natural
    layer_tokens: Natural
    # The time for which the client waited for the stage, in milliseconds.
    busy_ms: Natural
    # Running digests of the token ids of the prompts and of the answers.
    prompts: Hash = NOTHING
    answers: Hash = NOTHING
    # The last generation, and the digests that its stage must have (`span.py`).
    generation: Annotated[bytes, Meta(max_length=16)] = b""
    inputs: Hash = NOTHING
    outputs: Hash = NOTHING


class SignedReceipt(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A receipt as it travels. `stage_signature` is empty until the stage has signed."""

    payload: Annotated[bytes, Meta(max_length=MAX_RECEIPT_BYTES)]
    payer_signature: Signature
    stage_signature: Annotated[bytes, Meta(max_length=64)] = b""

    def open(self) -> ServiceReceipt:
        """Decode, and verify the payer's signature.

        Raises:
            PeerFault: "malformed" or "unsigned".
        """
        try:
            receipt = msgspec.msgpack.decode(self.payload, type=ServiceReceipt)
        except UNREADABLE as error:
            raise PeerFault("malformed", f"not a receipt: {error}") from None
        if not verify(receipt.payer, self.payer_signature, _PAYER_DOMAIN + self.payload):
            raise PeerFault("unsigned", "a receipt with another signature than its payer's")
        return receipt

    def open_countersigned(self) -> ServiceReceipt:
        """Decode, and verify both signatures. Raises as `open`."""
        receipt = self.open()
        signed = _STAGE_DOMAIN + self.payload + self.payer_signature
        if not verify(receipt.stage, self.stage_signature, signed):
            raise PeerFault("unsigned", "a receipt with another signature than its stage's")
        return receipt


def sign_receipt(receipt: ServiceReceipt, payer: Signer) -> SignedReceipt:
    """Sign a receipt as its payer."""
    payload = msgspec.msgpack.encode(receipt)
    return SignedReceipt(payload=payload, payer_signature=payer.sign(_PAYER_DOMAIN + payload))


def countersign(signed: SignedReceipt, stage: Signer) -> SignedReceipt:
    """Add the stage's signature."""
    signature = stage.sign(_STAGE_DOMAIN + signed.payload + signed.payer_signature)
    return msgspec.structs.replace(signed, stage_signature=signature)


def encode_receipt(signed: SignedReceipt) -> bytes:
    return msgspec.msgpack.encode(signed)


def decode_receipt(data: bytes) -> SignedReceipt:
    """Decode a signed receipt, without a look at its signatures. Raises `PeerFault`."""
    try:
        return msgspec.msgpack.decode(data, type=SignedReceipt)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a signed receipt: {error}") from None


def extend_tokens(before: Digest, tokens: bytes) -> Digest:
    """Return the running digest of token ids after some more of them, as they travel."""
    return digest(_TOKENS_DOMAIN, before, digest(_TOKENS_DOMAIN, tokens))


def check_receipt(
    receipt: ServiceReceipt, *, model: Digest, stage: PeerId, session: PeerId, layer_tokens: int
) -> None:
    """Check a receipt that a client brings to the stage.

    Args:
        layer_tokens: what the stage computed for this session.

    Raises:
        PeerFault: "malformed" for a receipt of another model, stage or session, or for more work
            than the stage did.
    """
    if (receipt.model, receipt.stage, receipt.session) != (model, stage, session):
        raise PeerFault("malformed", "a receipt of another model, stage or session")
    if receipt.layer_tokens > layer_tokens:
        raise PeerFault(
            "malformed",
            f"a receipt for {receipt.layer_tokens} tokens x layers, of which {layer_tokens} were"
            " computed",
        )
