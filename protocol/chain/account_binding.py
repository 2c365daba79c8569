"""The binding of a wallet and a node: the wallet names the node and a payout address.

The wallet signs peer id, wallet and payout as EIP-712 typed data
(https://eips.ethereum.org/EIPS/eip-712) for one chain and one contract. The binding travels inside
Ready, which the node key signs: that signature is the countersignature. So no node can claim
another's work, because its Ready would not be signed by the node that worked. And no node can name
another's wallet, because the wallet did not sign that peer id. A second Ed25519 signature in the
binding would add nothing, at 64 bytes for each offer of each certificate for ever.

The binding carries the wallet's public key, 33 bytes, and not the address: `cryptography`, which
also verifies what nodes sign, checks ECDSA on secp256k1 but does not recover keys from signatures.
The address follows from the key. So no second library is needed.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import UNSET, structs

from protocol.chain.keccak import keccak256
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages.offer import (
    Binding,
    BoundReady,
    BoundTaskReady,
    Ready,
    TaskReady,
    TrustReady,
    binding_of,
)
from protocol.run.manifest import Manifest

DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
BINDING_TYPE = b"Binding(string peer,address wallet,address payout)"
NAME, VERSION = b"HyperGPU", b"1"
KNOWN_BINDINGS = 4096
"""Checked bindings that are cached. A binding is the same in every round."""

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_ECDSA = ec.ECDSA(Prehashed(hashes.SHA256()))
"""The digest is given; only its length of 32 bytes matters."""


def account_of_key(public_key: bytes) -> bytes:
    """Return the 20-byte address of a compressed secp256k1 key.

    Raises `ValueError` for bytes that are not a point.
    """
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public_key)
    return keccak256(point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:])[-20:]


def domain_of(chain_id: int, contract: bytes) -> bytes:
    """Return the EIP-712 domain separator of everything that a wallet signs for a run."""
    return struct_hash(
        DOMAIN_TYPE,
        keccak256(NAME),
        keccak256(VERSION),
        chain_id.to_bytes(32, "big"),
        _word(contract),
    )


def struct_hash(kind: bytes, *words: bytes) -> bytes:
    """Return EIP-712's hashStruct. `words` have 32 bytes each."""
    return keccak256(keccak256(kind) + b"".join(words))


def binding_digest(
    peer: PeerId, wallet: bytes, payout: bytes, chain_id: int, contract: bytes
) -> bytes:
    """Return the 32 bytes that the wallet signs. Addresses have 20 bytes."""
    body = struct_hash(BINDING_TYPE, keccak256(peer.encode()), _word(wallet), _word(payout))
    return keccak256(b"\x19\x01" + domain_of(chain_id, contract) + body)


@lru_cache(maxsize=KNOWN_BINDINGS)
def check_binding(binding: Binding, peer: PeerId, chain_id: int, contract: bytes) -> bytes:
    """Return the wallet that signed this binding for this peer, chain and contract.

    Raises `PeerFault("bad_binding")` if its signature does not verify.
    """
    what = f"the binding of {short(peer)}"
    try:
        wallet = account_of_key(binding.public_key)
    except ValueError as error:
        raise PeerFault("bad_binding", f"{what} cannot be read: {error}") from None
    check_signature(
        binding.public_key,
        binding.signature,
        binding_digest(peer, wallet, binding.payout, chain_id, contract),
        what,
    )
    if not any(binding.payout):
        raise PeerFault("bad_binding", f"{what} pays the zero address")
    return wallet


def check_signature(public_key: bytes, signature: bytes, signed: bytes, what: str) -> bytes:
    """Return the address of a compressed key if r ‖ s is its signature of 32 bytes.

    Raises `PeerFault("bad_binding")` that names `what` otherwise.
    """
    try:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public_key)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        if s > _HALF_ORDER:
            # Contracts require the canonical one of the two signatures.
            raise ValueError("its signature is not canonical")
        point.verify(encode_dss_signature(r, s), signed, _ECDSA)
    except InvalidSignature:
        raise PeerFault(
            "bad_binding", f"{what} is not signed by its wallet for this peer, chain and contract"
        ) from None
    except ValueError as error:
        raise PeerFault("bad_binding", f"{what} cannot be read: {error}") from None
    return account_of_key(public_key)


def with_binding(offer: Ready, binding: Binding) -> Ready:
    """Return the same offer with a wallet."""
    if isinstance(offer, TrustReady):
        return structs.replace(offer, binding=binding)
    kind = BoundTaskReady if isinstance(offer, TaskReady) else BoundReady
    return kind(**structs.asdict(offer), binding=binding)


def wallet_of_offer(manifest: Manifest, peer: PeerId, offer: Ready) -> bytes | None:
    """Return the wallet that an offer of `peer` works for, or None if it names none.

    Raises `PeerFault("bad_binding")` for a binding that does not verify.
    """
    binding = binding_of(offer)
    if binding is None:
        return None
    settlement = manifest.settlement
    if settlement is UNSET:
        raise PeerFault(
            "bad_binding", f"{short(peer)} names a wallet, but this run has no settlement"
        )
    return check_binding(binding, peer, settlement.chain_id, settlement.contract_bytes)


def _word(address: bytes) -> bytes:
    return address.rjust(32, b"\0")
