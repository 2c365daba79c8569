"""The cache of plans: a node checks a valid plan once and any other plan each time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.certificates.decoded_plans import PLANS_KEPT, DecodedPlans
from protocol.errors import PeerFault
from protocol.messages.envelope import open_as, sign
from protocol.messages.round import Plan
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people, signer

FOUR = people(4)


def test_a_valid_plan_is_checked_once() -> None:
    plans, made = DecodedPlans(RUN, MANIFEST), Made(FOUR)
    first = plans.open(made.plan_signed, CHUNKS)
    assert plans.open(replace(made.plan_signed), CHUNKS) is first
    assert first == made.open_plan()
    # An observer checks less, so its result is kept apart.
    assert plans.open(made.plan_signed, None) is not first


def test_another_signature_or_payload_is_checked_again() -> None:
    plans, made = DecodedPlans(RUN, MANIFEST), Made(FOUR)
    plans.open(made.plan_signed, CHUNKS)
    for wrong in (
        replace(made.plan_signed, signature=bytes(64)),
        replace(made.plan_signed, payload=made.plan_signed.payload + b"\x00"),
        replace(made.plan_signed, peer=signer(4).peer),
    ):
        for _ in range(2):
            with pytest.raises(PeerFault):
                plans.open(wrong, CHUNKS)


def test_a_trusted_plan_is_not_kept() -> None:
    plans, made = DecodedPlans(RUN, MANIFEST), Made(FOUR)
    unsigned = replace(made.plan_signed, signature=bytes(64))
    plans.read(unsigned, CHUNKS, trusted=True)
    for check in (plans.read, plans.open):
        with pytest.raises(PeerFault, match="signature"):
            check(unsigned, CHUNKS)


def test_only_the_last_plans_are_kept() -> None:
    plans, made = DecodedPlans(RUN, MANIFEST), Made(FOUR)
    first = plans.open(made.plan_signed, CHUNKS)
    for number in range(PLANS_KEPT):
        plan = replace(open_as(Plan, made.plan_signed, RUN), reason=f"other words {number}")
        plans.open(sign(made.leader, RUN, plan), CHUNKS)
    again = plans.open(made.plan_signed, CHUNKS)
    assert again == first
    assert again is not first
