"""Signed records with which nodes tell each other where members are.

A record is believed because the peer that it describes signed it. The record's fields are part of
the signed bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from daemon.network.addresses import KINDS, PeerAddress, parse_peer_address
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, verify

# Addresses of one peer.
MAX_ADDRESSES = 8
# Runs that a node can be in.
MAX_KEYS = 4
# Records handed out at a time.
MAX_RECORDS = 32
MAX_RECORD_BYTES = 2048
MAX_EXCHANGE_BYTES = MAX_RECORDS * (MAX_RECORD_BYTES + 64 + 16) + 16

_DOMAIN = b"hypergpu/peer-record/1\x00"


class PeerRecord(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What a member says of itself: where it is and which keys (runs) it provides.

    The record with the greater `seq` is the newer one.
    """

    peer: PeerId
    addresses: tuple[str, ...]
    keys: tuple[bytes, ...]
    seq: int


class SignedPeerRecord(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """An encoded `PeerRecord` and its peer's signature."""

    body: bytes
    signature: bytes


class PeerExchange(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What each side of `/hypergpu/peers/1` sends. The sender's own record comes first."""

    records: tuple[SignedPeerRecord, ...]


_record_decoder = msgspec.msgpack.Decoder(PeerRecord)
_exchange_decoder = msgspec.msgpack.Decoder(PeerExchange)


def seal_record(
    signer: Signer, addresses: Iterable[PeerAddress], keys: Iterable[bytes], seq: int
) -> SignedPeerRecord:
    """The signed record of `signer`'s node."""
    body = msgspec.msgpack.encode(
        PeerRecord(
            peer=signer.peer,
            addresses=tuple(map(str, addresses))[:MAX_ADDRESSES],
            keys=tuple(sorted(keys))[:MAX_KEYS],
            seq=seq,
        )
    )
    return SignedPeerRecord(body=body, signature=signer.sign(_DOMAIN + body))


def read_record(signed: SignedPeerRecord) -> PeerRecord:
    """The record's content. The signature is not checked.

    Raises:
        PeerFault: "oversized" or "malformed".
    """
    if len(signed.body) > MAX_RECORD_BYTES:
        raise PeerFault("oversized", f"a peer record of {len(signed.body)} bytes")
    try:
        record = _record_decoder.decode(signed.body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PeerFault("malformed", f"a peer record: {error}") from None
    if (
        len(record.addresses) > MAX_ADDRESSES
        or len(record.keys) > MAX_KEYS
        or any(len(key) != 32 for key in record.keys)
    ):
        raise PeerFault(
            "malformed",
            f"a peer record of {len(record.addresses)} addresses and {len(record.keys)} keys",
        )
    return record


def check_record(signed: SignedPeerRecord, record: PeerRecord) -> tuple[PeerAddress, ...]:
    """Check that `record` is signed by its peer, and parse its addresses.

    Addresses of kinds that this program does not know are left out: a later one may know them.

    Raises:
        PeerFault: "identity", "unsigned" or "malformed".
    """
    if not verify(record.peer, signed.signature, _DOMAIN + signed.body):
        raise PeerFault("unsigned", f"a peer record that {record.peer} did not sign")
    known = (text for text in record.addresses if (*text.split("/"), "")[1] in KINDS)
    addresses = tuple(map(parse_peer_address, known))
    if any(address.peer != record.peer for address in addresses):
        raise PeerFault("malformed", f"{record.peer} gives addresses of another peer")
    return addresses


def encode_exchange(records: Iterable[SignedPeerRecord]) -> bytes:
    """One side's message of an exchange."""
    return msgspec.msgpack.encode(PeerExchange(records=tuple(records)[:MAX_RECORDS]))


def decode_exchange(data: bytes) -> tuple[SignedPeerRecord, ...]:
    """The records of an exchange. Raises `PeerFault`."""
    try:
        records = _exchange_decoder.decode(data).records
    except (msgspec.DecodeError, RecursionError) as error:
        raise PeerFault("malformed", f"a peer exchange: {error}") from None
    if len(records) > MAX_RECORDS:
        raise PeerFault("oversized", f"a peer exchange of {len(records)} records")
    return records
