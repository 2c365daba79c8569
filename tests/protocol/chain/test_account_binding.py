"""Bindings: what the wallet signs, and how attempts to claim another's pay fail."""

from __future__ import annotations

from functools import lru_cache

import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from daemon.wallet.binding import bind
from daemon.wallet.keystore import UnlockedWallet, wallet_of
from protocol.certificates.certificate import open_certificate
from protocol.certificates.tip import genesis
from protocol.chain import account_binding as module
from protocol.chain.account_binding import (
    account_of_key,
    binding_digest,
    check_binding,
    wallet_of_offer,
    with_binding,
)
from protocol.chain.keccak import keccak256
from protocol.digest import digest
from protocol.errors import PeerFault
from protocol.messages.envelope import payload_of
from protocol.messages.offer import Binding, Ready
from protocol.planning.plan import make_plan, open_plan
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.machine import begin
from protocol.round.offer_phase import ready_received
from protocol.round.state import RunContext
from protocol.run.manifest import Manifest, seal
from protocol.settlement.receipts import receipts_of
from protocol.settlement.rules import Settlement
from tests.protocol.rounds import CHUNKS, MANIFEST, Made, offers_of, people, ready
from tests.protocol.rounds import sign as sign_message

CHAIN, CONTRACT = 31337, bytes(range(20))
PAID = replace(
    MANIFEST,
    chain="hypergpu",
    settlement=Settlement(chain_id=CHAIN, contract="0x" + CONTRACT.hex()),
)
PAID_RUN = seal(PAID).run
COLD = b"\x05" * 20
A, B, C = people(3)


@lru_cache
def wallet(i: int) -> UnlockedWallet:
    return wallet_of(digest(b"wallet", bytes([i])))


def bound(
    who: UnlockedWallet,
    peer: str,
    payout: bytes = COLD,
    chain: int = CHAIN,
    contract: bytes = CONTRACT,
) -> Binding:
    return bind(who, peer, payout, chain, contract)


def offer(person: int, binding: Binding | None) -> Ready:
    plain = ready(genesis(PAID_RUN), people(3)[person])
    return with_binding(plain, binding) if binding else plain


def test_keccak_is_ethereums() -> None:
    assert (
        keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )


def test_the_account_of_a_key_is_ethereums() -> None:
    for i in range(3):
        assert account_of_key(wallet(i).public_key) == wallet(i).raw_address


def test_the_signed_digest_is_eip712_as_others_compute_it() -> None:
    typed = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Binding": [
                {"name": "peer", "type": "string"},
                {"name": "wallet", "type": "address"},
                {"name": "payout", "type": "address"},
            ],
        },
        "primaryType": "Binding",
        "domain": {
            "name": "HyperGPU",
            "version": "1",
            "chainId": CHAIN,
            "verifyingContract": "0x" + CONTRACT.hex(),
        },
        "message": {"peer": A.peer, "wallet": wallet(1).address, "payout": "0x" + COLD.hex()},
    }
    encoded = encode_typed_data(full_message=typed)
    expected = keccak256(b"\x19" + encoded.version + encoded.header + encoded.body)
    assert binding_digest(A.peer, wallet(1).raw_address, COLD, CHAIN, CONTRACT) == expected


def test_a_binding_names_its_wallet_and_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bound(wallet(1), A.peer)
    assert check_binding(made, A.peer, CHAIN, CONTRACT) == wallet(1).raw_address
    # A second computation of the digest would fail.
    monkeypatch.setattr(module, "binding_digest", None)
    assert check_binding(made, A.peer, CHAIN, CONTRACT) == wallet(1).raw_address


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (bound(wallet(1), B.peer), "another peer's"),
        (bound(wallet(1), A.peer, chain=CHAIN + 1), "another chain's"),
        (bound(wallet(1), A.peer, contract=bytes(20)), "another contract's"),
        (replace(bound(wallet(1), A.peer), payout=b"\x06" * 20), "another payout"),
        (replace(bound(wallet(1), A.peer), public_key=wallet(2).public_key), "another wallet"),
        (replace(bound(wallet(1), A.peer), public_key=b"\x02" + b"\xff" * 32), "no point"),
        (replace(bound(wallet(1), A.peer), public_key=bytes(33)), "no point"),
        (replace(bound(wallet(1), A.peer), signature=bytes(64)), "no signature"),
        (replace(bound(wallet(1), A.peer), signature=b"\xff" * 64), "not canonical"),
        (bound(wallet(1), A.peer, payout=bytes(20)), "the zero address"),
    ],
)
def test_a_wrong_binding_is_refused_by_name_wherever_it_comes(made: Binding, why: str) -> None:
    wrong = offer(0, made)
    with pytest.raises(PeerFault) as caught:
        wallet_of_offer(PAID, A.peer, wrong)
    assert caught.value.reason == "bad_binding", why
    assert A.peer[-8:] in str(caught.value)

    # The leader does not let the offer into a plan, and says why.
    state = begin(
        RunContext(run=PAID_RUN, me=B.peer, manifest=PAID, chunks=CHUNKS),
        genesis(PAID_RUN),
        0.0,
        live=frozenset({A.peer}),
    )
    after, actions = ready_received(
        state, e.ReadyReceived(signed=sign_message(A, PAID_RUN, wrong), ready=wrong), 0.0
    )
    assert after.readies == {}
    assert [(one.reason, one.peer) for one in actions if isinstance(one, a.Refuse)] == [
        ("bad_binding", A.peer)
    ]

    # Members refuse the plan of a leader that does.
    good = [(person, ready(genesis(PAID_RUN), person)) for person in (B, C)]
    offers = [(sign_message(person, PAID_RUN, each), each) for person, each in [(A, wrong), *good]]
    plan = make_plan(PAID_RUN, 0, 1, offers, PAID, CHUNKS, leader=B.peer)
    with pytest.raises(PeerFault) as caught:
        open_plan(sign_message(B, PAID_RUN, plan), PAID_RUN, PAID, CHUNKS)
    assert caught.value.reason == "bad_binding"


def test_the_other_signature_of_the_same_key_is_refused() -> None:
    """(r, n - s) verifies too, so one signature would make two bindings.

    Contracts refuse the second signature.
    """
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    made = bound(wallet(1), A.peer)
    mirrored = made.signature[:32] + (order - int.from_bytes(made.signature[32:], "big")).to_bytes(
        32, "big"
    )
    with pytest.raises(PeerFault, match="canonical"):
        check_binding(replace(made, signature=mirrored), A.peer, CHAIN, CONTRACT)


def test_a_run_without_a_settlement_refuses_bindings() -> None:
    with pytest.raises(PeerFault, match="no settlement"):
        wallet_of_offer(MANIFEST, A.peer, offer(0, bound(wallet(1), A.peer)))
    assert wallet_of_offer(MANIFEST, A.peer, offer(0, None)) is None


def test_bound_offers_make_a_plan_a_certificate_and_receipts() -> None:
    bindings = {A.peer: bound(wallet(1), A.peer), B.peer: bound(wallet(2), B.peer)}
    made = Made(people(3), run=PAID_RUN, manifest=PAID)
    offers = [
        (sign_message(person, PAID_RUN, each), each)
        for person, (_, plain) in zip(
            people(3), offers_of(made.tip, people(3), run=PAID_RUN), strict=True
        )
        for each in [
            with_binding(plain, bindings[person.peer]) if person.peer in bindings else plain
        ]
    ]
    made.plan = make_plan(PAID_RUN, 0, 1, offers, PAID, CHUNKS, leader=made.leader.peer)
    made.plan_signed = made.signed(made.plan)
    made.vote = replace(made.vote, plan=made.plan_signed.digest)
    made.with_inclusion(plan=made.plan_signed.digest)
    certificate = open_certificate(made.raw(), PAID_RUN, PAID, CHUNKS)
    receipts = receipts_of(certificate, lambda peer, each: wallet_of_offer(PAID, peer, each))
    assert {one.peer: one.account for one in receipts} == {
        A.peer: wallet(1).raw_address,
        B.peer: wallet(2).raw_address,
        C.peer: None,
    }


def test_a_binding_is_small_and_costs_nothing_where_there_is_none() -> None:
    without, with_one = payload_of(offer(0, None)), payload_of(offer(0, bound(wallet(1), A.peer)))
    assert len(with_one) - len(without) <= 130
    assert b"BoundReady" not in without


@given(
    st.binary(min_size=33, max_size=33),
    st.binary(min_size=20, max_size=20),
    st.binary(min_size=64, max_size=64),
)
def test_no_bytes_crash_the_check(key: bytes, payout: bytes, signature: bytes) -> None:
    with pytest.raises(PeerFault):
        check_binding(
            Binding(public_key=key, payout=payout, signature=signature), A.peer, CHAIN, CONTRACT
        )


def test_a_settlement_needs_a_chain() -> None:
    with pytest.raises(ValueError, match="must name its chain"):
        Manifest(name="x", task="y", settlement=Settlement(chain_id=1, contract="0x" + "11" * 20))


@pytest.mark.parametrize(("chain_id", "contract"), [(1, ""), (1, "0x11"), (1, "zz" * 20)])
def test_a_contract_is_an_address(chain_id: int, contract: str) -> None:
    with pytest.raises(ValueError, match="settlement"):
        Settlement(chain_id=chain_id, contract=contract)
