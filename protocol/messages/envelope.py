"""The envelope: sign, encode, decode and open a message.

A signature covers a domain, the run id and the payload. It is valid in one run only.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, verify
from protocol.messages.base import MAX_MESSAGE_BYTES, UNREADABLE, Message, Signed
from protocol.messages.beacon import Beacon, ScoredBeacon
from protocol.messages.membership import Leave, Recovery, Revocation, TrainingOrder
from protocol.messages.offer import (
    BoundReady,
    BoundTaskReady,
    FirstBoundReady,
    Ready,
    TaskReady,
    TrustReady,
)
from protocol.messages.round import (
    Announce,
    GroupSum,
    HoldReport,
    Inclusion,
    PacedPlan,
    Plan,
    SliceResult,
    TrustPlan,
    TrustVote,
    Vote,
    Withdrawal,
)

_DOMAIN = b"hypergpu/message/1\0"
# The bytes of peer id, signature and framing around a payload.
_ENVELOPE_BYTES = 256

AnyMessage = (
    Beacon
    | ScoredBeacon
    | Ready
    | BoundReady
    | TaskReady
    | BoundTaskReady
    | TrustReady
    | Plan
    | PacedPlan
    | TrustPlan
    | HoldReport
    | Withdrawal
    | Inclusion
    | GroupSum
    | SliceResult
    | Vote
    | TrustVote
    | Announce
    | Leave
    | Revocation
    | Recovery
    | TrainingOrder
)
M = TypeVar("M", bound=Message)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_first_bound_decoder: msgspec.msgpack.Decoder[FirstBoundReady] = msgspec.msgpack.Decoder(
    FirstBoundReady
)
_vote_decoder: msgspec.msgpack.Decoder[Vote | TrustVote] = msgspec.msgpack.Decoder(Vote | TrustVote)
_signed_decoder = msgspec.msgpack.Decoder(Signed)


def sign(signer: Signer, run: Digest, message: Message) -> Signed:
    """Sign a message for one run."""
    payload = _encoder.encode(message)
    return Signed(payload, signer.peer, signer.sign(_DOMAIN + run + payload))


def payload_of(message: Message) -> bytes:
    """Encode the bytes that are signed; equal messages give equal bytes."""
    return _encoder.encode(message)


def decode_vote(payload: bytes) -> Vote:
    """Decode the bytes that voters sign, unchecked.

    Raises one of `UNREADABLE`.
    """
    return _vote_decoder.decode(payload)


def signature_is_valid(run: Digest, payload: bytes, peer: PeerId, signature: bytes) -> bool:
    """Whether `peer` signed `payload` as a message of this run."""
    return verify(peer, signature, _DOMAIN + run + payload)


def encode_signed(signed: Signed) -> bytes:
    return _encoder.encode(signed)


def decode_signed(data: bytes) -> Signed:
    """Decode an envelope, but not the message inside.

    Raises:
        PeerFault: "oversized" or "malformed".
    """
    if len(data) > MAX_MESSAGE_BYTES + _ENVELOPE_BYTES:
        raise PeerFault(
            "oversized", f"a message of {len(data)} bytes; the limit is {MAX_MESSAGE_BYTES}"
        )
    try:
        return _signed_decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a signed message: {error}") from None


def open_signed(signed: Signed, run: Digest, *, trusted: bool = False) -> AnyMessage:
    """Verify an envelope and decode the message inside.

    Args:
        trusted: skip the signature, for what this node verified before and read from its own disk.

    Raises:
        PeerFault: "unsigned", "malformed" or "identity".
    """
    if not trusted and not signature_is_valid(run, signed.payload, signed.peer, signed.signature):
        raise PeerFault(
            "unsigned", f"the signature of {signed.peer} does not fit this message and run"
        )
    try:
        return _decoder.decode(signed.payload)
    except UNREADABLE as error:
        first = _first_bound(signed.payload)
        if first is not None:
            return first
        raise PeerFault("malformed", f"{signed.peer} signed an unknown message: {error}") from None


def _first_bound(payload: bytes) -> BoundReady | None:
    """Decode a bound offer from before offers had a trajectory; None for anything else."""
    try:
        return BoundReady(**msgspec.structs.asdict(_first_bound_decoder.decode(payload)))
    except UNREADABLE:
        return None


def open_as(kind: type[M], signed: Signed, run: Digest, *, trusted: bool = False) -> M:
    """Open an envelope whose message must be of `kind`.

    Raises:
        PeerFault: as `open_signed`, and "malformed" for a message of another kind.
    """
    message = open_signed(signed, run, trusted=trusted)
    if not isinstance(message, kind):
        raise PeerFault("malformed", f"expected a {kind.__name__}, got a {type(message).__name__}")
    return message
