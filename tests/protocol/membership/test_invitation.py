"""Invitations: the token that people pass on, and the proof that a peer's offers carry."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digest import digest
from protocol.errors import PeerFault, UserError
from protocol.identity import Signer
from protocol.membership.invitation import (
    CLOCK_SKEW_S,
    Grant,
    SignedGrant,
    expiry_fault,
    make_proof,
    open_proof,
    proof_expiry_fault,
    sign_grant,
)
from protocol.membership.invitation_token import (
    MAX_ADDRESSES,
    Invitation,
    check_expiry,
    check_token,
    decode_token,
    encode_token,
    entrances_of,
    is_token,
)
from protocol.messages.membership import MAX_INVITATION_BYTES
from protocol.text import base58
from tests.protocol.rounds import people

OWNER, FRIEND, OTHER = people(3)
RUN, OTHER_RUN = digest(b"run"), digest(b"other run")
SECRET = bytes(range(32))
NOW_S = 1_800_000_000
ADDRESSES = (
    f"/ip4/203.0.113.7/tcp/4001/p2p/{OWNER.peer}",
    f"/dns4/home.example.org/tcp/46273/p2p/{OTHER.peer}",
)
GRANT = Grant(
    key=Signer(SECRET).public_key,
    serial=3,
    uses=2,
    voters=1,
    expires_s=NOW_S + 7 * 86400,
    certificate=digest(b"certificate"),
)
SIGNED = sign_grant(OWNER, RUN, GRANT)
INVITATION = Invitation(run=RUN, grant=SIGNED, secret=SECRET, entrances=entrances_of(ADDRESSES))
TOKEN = encode_token(INVITATION)


def refused(text: str) -> UserError:
    with pytest.raises(UserError) as error:
        decode_token(text)
    assert (error.value.code, error.value.exit_code) == ("INVITATION", 2)
    return error.value


def test_a_token_is_one_line_that_a_double_click_selects() -> None:
    assert TOKEN.startswith("hgpu1")
    assert TOKEN.isalnum()
    assert len(TOKEN) < 560
    assert decode_token(TOKEN) == INVITATION
    assert INVITATION.addresses == ADDRESSES
    assert check_token(INVITATION, RUN, OWNER.peer) == GRANT == INVITATION.granted()


@pytest.mark.parametrize(
    "wrapped", [f"  {TOKEN}\n", f"'{TOKEN}'", TOKEN[:70] + "\n  " + TOKEN[70:]]
)
def test_blanks_and_quotes_around_a_token_do_not_count(wrapped: str) -> None:
    assert is_token(wrapped)
    assert decode_token(wrapped) == INVITATION


@given(st.integers(5, len(TOKEN) - 1))
def test_a_token_that_was_cut_off_says_so(length: int) -> None:
    words = refused(TOKEN[:length]).why
    assert "cut off" in words
    if length > 15:
        assert f"{length} of {len(TOKEN)} characters" in words


@given(place=st.integers(5, len(TOKEN) - 1), letter=st.sampled_from(base58.ALPHABET))
def test_a_changed_character_is_known(place: int, letter: str) -> None:
    if TOKEN[place] != letter:
        words = refused(TOKEN[:place] + letter + TOKEN[place + 1 :]).why
        assert "garbled" in words or "cut off" in words or "characters, but says" in words


def test_other_texts_are_no_invitations() -> None:
    assert not is_token(ADDRESSES[0])
    assert "begins with hgpu1" in refused("hgpu").why
    assert (
        "version 2; this program reads version 1" in refused(TOKEN.replace("hgpu1", "hgpu2")).what
    )
    assert "character 9, '0'" in refused("hgpu1" + TOKEN[5:13] + "0" + TOKEN[14:]).why
    assert "says" in refused(TOKEN + "22").why
    assert "characters" in refused("hgpu1" + "2" * 5000).why


@given(st.binary(max_size=200))
def test_noise_is_refused_with_a_reason(noise: bytes) -> None:
    body = len(noise).to_bytes(2, "big") + noise
    sealed = base58.encode(body + digest(b"hypergpu/token/1\0", noise)[:4])
    assert refused("hgpu1" + sealed).why


def test_a_token_is_for_one_run_and_of_its_owner() -> None:
    with pytest.raises(UserError, match="for another run"):
        check_token(INVITATION, OTHER_RUN, OWNER.peer)
    for owner in (FRIEND.peer, "", "nobody"):
        with pytest.raises((UserError, PeerFault)):
            check_token(INVITATION, RUN, owner)
    forged = msgspec.structs.replace(INVITATION, grant=sign_grant(FRIEND, RUN, GRANT))
    with pytest.raises(UserError, match="owner did not sign"):
        check_token(forged, RUN, OWNER.peer)


def test_an_expired_token_is_refused_with_its_date() -> None:
    check_expiry(GRANT, GRANT.expires_s)
    with pytest.raises(UserError, match=r"expired on 2027-01-22 at 08:00 UTC"):
        check_expiry(GRANT, GRANT.expires_s + 1)
    assert expiry_fault(GRANT, GRANT.expires_s + CLOCK_SKEW_S) == ""
    assert "expired 2.0 h ago" in expiry_fault(GRANT, GRANT.expires_s + 7200.0)


def test_a_leader_looks_at_the_expiry_of_the_proof_in_an_offer() -> None:
    proof = make_proof(SIGNED, SECRET, RUN, FRIEND.peer)
    assert proof_expiry_fault(proof, NOW_S) == ""
    assert "expired" in proof_expiry_fault(proof, NOW_S + 8 * 86400)
    assert proof_expiry_fault(b"", NOW_S) == proof_expiry_fault(b"\xc1", 1e12) == ""
    # Other members judge the certificate without a clock.
    assert open_proof(proof, FRIEND.peer, RUN, OWNER.peer) == GRANT


def test_addresses_of_other_transports_are_left_out() -> None:
    many = tuple(f"/ip4/203.0.113.{i}/tcp/4001/p2p/{OWNER.peer}" for i in range(20))
    assert len(entrances_of(many)) == MAX_ADDRESSES
    assert entrances_of(("/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/1/p2p/nobody")) == ()


# ------------------------------------------------------------------------------------------- proofs


def not_admitted(proof: bytes, peer: str = FRIEND.peer, run: bytes = RUN) -> str:
    with pytest.raises(PeerFault) as fault:
        open_proof(proof, peer, run, OWNER.peer)
    assert fault.value.reason == "not_admitted"
    return str(fault.value)


def test_a_proof_admits_the_peer_that_it_names() -> None:
    proof = make_proof(SIGNED, SECRET, RUN, FRIEND.peer)
    assert len(proof) < MAX_INVITATION_BYTES // 2
    assert open_proof(proof, FRIEND.peer, RUN, OWNER.peer) == GRANT


def test_another_peer_cannot_copy_a_proof_from_the_wire() -> None:
    proof = make_proof(SIGNED, SECRET, RUN, FRIEND.peer)
    assert "not bound to" in not_admitted(proof, OTHER.peer)
    # A thief has the grant, and signs its own id with a key of its own.
    assert "not bound to" in not_admitted(
        make_proof(SIGNED, bytes(32), RUN, OTHER.peer), OTHER.peer
    )


def test_a_proof_of_another_run_or_owner_admits_nobody() -> None:
    proof = make_proof(SIGNED, SECRET, RUN, FRIEND.peer)
    assert "owner did not sign" in not_admitted(proof, run=OTHER_RUN)
    own = make_proof(sign_grant(FRIEND, RUN, GRANT), SECRET, RUN, FRIEND.peer)
    assert "owner did not sign" in not_admitted(own)
    with pytest.raises(PeerFault, match="owner did not sign"):
        open_proof(proof, FRIEND.peer, RUN, "")


@given(st.binary(max_size=400), st.integers(0, 2**32))
def test_noise_and_changed_bits_admit_nobody(noise: bytes, seed: int) -> None:
    not_admitted(noise)
    proof = bytearray(make_proof(SIGNED, SECRET, RUN, FRIEND.peer))
    place = Random(seed).randrange(len(proof))
    proof[place] ^= 1 << Random(seed + 1).randrange(8)
    not_admitted(bytes(proof))


@pytest.mark.parametrize("change", [{"uses": 0}, {"uses": 5000}, {"voters": 0}, {"voters": 33}])
def test_a_grant_outside_its_limits_admits_nobody(change: dict[str, int]) -> None:
    body = msgspec.msgpack.encode(msgspec.structs.replace(GRANT, **change))
    signed = SignedGrant(body=body, signature=OWNER.sign(b"hypergpu/invitation/1\0" + RUN + body))
    assert "unreadable" in not_admitted(make_proof(signed, SECRET, RUN, FRIEND.peer))
