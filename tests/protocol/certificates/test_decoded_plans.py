"""A plan is made again once; what was not found right is looked at again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.certificates.decoded_plans import PLANS_KEPT, DecodedPlans
from protocol.errors import PeerFault
from protocol.messages.envelope import open_as, sign
from protocol.messages.round import Plan
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people, signer

FOUR = people(4)


def test_a_plan_is_opened_once_and_is_what_it_was() -> None:
    plans, made = DecodedPlans(RUN, MANIFEST), Made(FOUR)
    first = plans.open(made.plan_signed, CHUNKS)
    assert plans.open(replace(made.plan_signed), CHUNKS) is first
    assert first == made.open_plan()
    assert plans.open(made.plan_signed, None) is not first  # an observer's look is another one


def test_another_signature_or_payload_is_looked_at_again() -> None:
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


def test_what_is_only_trusted_is_not_kept() -> None:
    plans, made = DecodedPlans(RUN, MANIFEST), Made(FOUR)
    unsigned = replace(made.plan_signed, signature=bytes(64))
    plans.read(unsigned, CHUNKS, trusted=True)
    for look in (plans.read, plans.open):
        with pytest.raises(PeerFault, match="signature"):
            look(unsigned, CHUNKS)


def test_only_the_last_ones_are_kept() -> None:
    plans, made = DecodedPlans(RUN, MANIFEST), Made(FOUR)
    first = plans.open(made.plan_signed, CHUNKS)
    for number in range(PLANS_KEPT):
        plan = replace(open_as(Plan, made.plan_signed, RUN), reason=f"said in other words {number}")
        plans.open(sign(made.leader, RUN, plan), CHUNKS)
    again = plans.open(made.plan_signed, CHUNKS)
    assert again == first
    assert again is not first
