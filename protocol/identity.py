"""Peer ids as libp2p writes them, and the Ed25519 key behind each.

A peer id is the base58 text of the identity multihash of the libp2p public-key protobuf
(https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md): `00 24 08 01 12 20` and the 32
bytes of the key. For Ed25519, the id therefore *is* the key: anyone who knows the id can check a
signature without a lookup.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import PeerFault

PeerId = str
"""Base58 text of an Ed25519 libp2p peer id, 52 characters beginning with `12D3KooW`."""

_PREFIX = bytes.fromhex("002408011220")
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
# An Ed25519 id has 52; longer text is refused before any arithmetic on it.
MAX_PEER_ID_CHARS = 60
# The signatures that are remembered as valid: those of two rounds of 64 members.
KNOWN_SIGNATURES = 1024
# Their messages are kept with them, 8 MB at most. Longer messages arrive once.
KNOWN_MESSAGE_BYTES = 1 << 13
# The parsed keys kept: more than the peers that a node talks to.
KNOWN_KEYS = 4096


def peer_id_of(public_key: bytes) -> PeerId:
    """The peer id of a 32-byte Ed25519 public key."""
    if len(public_key) != 32:
        raise ValueError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
    number = int.from_bytes(_PREFIX + public_key, "big")
    letters: list[str] = []
    while number:
        number, value = divmod(number, 58)
        letters.append(_ALPHABET[value])
    # The leading zero byte of an id is a leading "1".
    return "1" + "".join(reversed(letters))


@lru_cache(maxsize=KNOWN_KEYS)
def public_key_of(peer: PeerId) -> Ed25519PublicKey:
    """The key behind a peer id.

    Raises `PeerFault("identity")` when the text is not the id of an Ed25519 key.
    """
    if len(peer) > MAX_PEER_ID_CHARS:
        raise PeerFault("identity", f"a peer id of {len(peer)} characters")
    number = 0
    for letter in peer:
        value = _VALUES.get(letter)
        if value is None:
            raise PeerFault("identity", f"{peer!r} is not base58")
        number = number * 58 + value
    raw = number.to_bytes(64, "big")[-(len(_PREFIX) + 32) :]
    if (
        number >> (8 * (len(_PREFIX) + 32))
        or not raw.startswith(_PREFIX)
        or peer_id_of(raw[-32:]) != peer
    ):
        raise PeerFault("identity", f"{peer!r} is not the id of an Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(raw[-32:])


def short(peer: PeerId) -> str:
    """The last eight characters of a peer id; the first ones are equal for all peers."""
    return peer[-8:]


class Signer:
    """A node's own key and peer id. Signatures are deterministic (RFC 8032)."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is the 32-byte Ed25519 seed."""
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public_key = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self.peer: PeerId = peer_id_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Sign a message; the signature has 64 bytes."""
        return self._key.sign(message)


def verify(peer: PeerId, signature: bytes, message: bytes) -> bool:
    """Whether `peer` signed `message`.

    The same signature arrives several times: an offer by itself, in the plan and in every copy of
    the certificate, a vote by itself and in the certificate. It is checked once.

    Raises:
        PeerFault: "identity" for a text that is no peer id.
    """
    return (_verify_once if len(message) <= KNOWN_MESSAGE_BYTES else _verify)(
        peer, signature, message
    )


def _verify(peer: PeerId, signature: bytes, message: bytes) -> bool:
    try:
        public_key_of(peer).verify(signature, message)
    except InvalidSignature:
        return False
    return True


_verify_once = lru_cache(maxsize=KNOWN_SIGNATURES)(_verify)
