"""Peer ids equal libp2p's, and a signature verifies only for its signer."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import PeerFault
from protocol.identity import (
    KNOWN_MESSAGE_BYTES,
    MAX_PEER_ID_CHARS,
    Signer,
    peer_id_of,
    public_key_of,
    short,
    verify,
)

SECRETS = st.binary(min_size=32, max_size=32)
KNOWN = {
    # RFC 8032, section 7.1, tests 1 and 2: secret, public key, and libp2p's text for it.
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV",
    ),
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "12D3KooWDwTirQce1RRKnasT5fPVFgzXCy6SiRgSwrwPGLC7zE91",
    ),
}
ASK_LIBP2P = """
import json, sys
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.peer.id import ID
keys = [Ed25519PublicKey.from_bytes(bytes.fromhex(key)) for key in json.loads(sys.argv[1])]
print(json.dumps([str(ID.from_pubkey(key)) for key in keys]))
"""


@pytest.mark.parametrize("secret", KNOWN)
def test_known_ids(secret: str) -> None:
    public_key, peer = KNOWN[secret]
    signer = Signer(bytes.fromhex(secret))
    assert signer.public_key.hex() == public_key
    assert signer.peer == peer
    assert len(peer) == 52
    assert short(peer) == peer[-8:]


def test_libp2p_agrees() -> None:
    """libp2p runs in another process, because the protocol never imports it."""
    keys = [public_key for public_key, _ in KNOWN.values()] + [
        "00" * 32,
        "ff" * 32,
        "00" * 31 + "01",
    ]
    printed = subprocess.run(
        [sys.executable, "-c", ASK_LIBP2P, json.dumps(keys)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(printed.stdout.strip().splitlines()[-1]) == [
        peer_id_of(bytes.fromhex(key)) for key in keys
    ]


@given(SECRETS, st.binary(max_size=200))
def test_the_peer_id_suffices_to_check_a_signature(secret: bytes, message: bytes) -> None:
    signer = Signer(secret)
    signature = signer.sign(message)
    assert public_key_of(signer.peer).public_bytes_raw() == signer.public_key
    assert verify(signer.peer, signature, message)
    assert signature == Signer(secret).sign(message)
    assert not verify(signer.peer, signature, message + b"\0")
    assert not verify(Signer(bytes(32)).peer, signature, message) or secret == bytes(32)


@given(SECRETS, st.integers(0, 511))
def test_a_changed_signature_is_refused(secret: bytes, bit: int) -> None:
    signer = Signer(secret)
    signature = bytearray(signer.sign(b"a round"))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(signer.peer, bytes(signature), b"a round")
    assert not verify(signer.peer, bytes(signature[:-1]), b"a round")


@given(
    st.text(max_size=80)
    | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", max_size=70)
)
def test_text_that_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(PeerFault) as refused:
        public_key_of(text)
    assert refused.value.reason == "identity"


@given(SECRETS, st.integers(0, 51), st.sampled_from("123ABCxyz0OIl "))
def test_an_id_has_one_spelling(secret: bytes, place: int, letter: str) -> None:
    """Another spelling of the same key would be a second vote."""
    peer = Signer(secret).peer
    other = peer[:place] + letter + peer[place + 1 :]
    for spelling in ("1" + peer, peer[1:], peer + "1", " " + peer, peer.swapcase(), other):
        with suppress(PeerFault):
            assert (
                public_key_of(spelling).public_bytes_raw() != Signer(secret).public_key
                or spelling == peer
            )


def test_long_text_is_refused_before_any_arithmetic() -> None:
    with pytest.raises(PeerFault, match="characters"):
        public_key_of("z" * (MAX_PEER_ID_CHARS + 1))
    with pytest.raises(PeerFault, match="not the id"):
        public_key_of("z" * MAX_PEER_ID_CHARS)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_only_keys_of_32_bytes_have_ids(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        peer_id_of(bytes(size))


@pytest.mark.parametrize("size", [10, KNOWN_MESSAGE_BYTES + 1])
def test_a_remembered_signature_makes_no_other_valid(size: int) -> None:
    signer, other = Signer(bytes(31) + b"\x01"), Signer(bytes(31) + b"\x02")
    message = b"m" * size
    signature = signer.sign(message)
    for _ in range(2):
        assert verify(signer.peer, signature, message)
        assert not verify(other.peer, signature, message)
        assert not verify(signer.peer, signature[:-1] + bytes([signature[-1] ^ 1]), message)
        assert not verify(signer.peer, signature, message[:-1] + b"n")
