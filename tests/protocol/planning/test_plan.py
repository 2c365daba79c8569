"""The plan: it follows from the offers, and any other plan is refused with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.averaging.vector_layout import CHUNK_ELEMENTS, MAX_PARAMETERS
from protocol.certificates.tip import genesis
from protocol.errors import PeerFault
from protocol.identity import Signer
from protocol.messages.envelope import sign
from protocol.messages.offer import Ready
from protocol.messages.round import PacedPlan, Plan
from protocol.planning.plan import OpenPlan, make_plan, open_plan, read_plan
from protocol.planning.round_length import MOST_CHANGE, next_round_s, round_length
from protocol.rules.versions import RULES_2
from protocol.run.manifest import MAX_GROUP_LIMIT
from tests.protocol.rounds import (
    CHUNKS,
    MANIFEST,
    RUN,
    Made,
    named,
    offers_of,
    people,
    ready,
    signer,
)

TIP = genesis(RUN)
MAX_GROUP = MANIFEST.group.max_group
LEADER = people(4)[1]


def made_by(leader: Signer, plan: Plan, chunks: int | None = CHUNKS) -> OpenPlan:
    return open_plan(sign(leader, RUN, plan), RUN, MANIFEST, chunks)


def good(size: int = 4, leader: Signer = LEADER) -> Plan:
    return make_plan(
        TIP.hash, 0, 1, offers_of(TIP, people(size)), MANIFEST, CHUNKS, leader=leader.peer
    )


def refused(plan: Plan, leader: Signer = LEADER, chunks: int | None = CHUNKS) -> str:
    with pytest.raises(PeerFault) as fault:
        made_by(leader, plan, chunks)
    assert fault.value.reason == "bad_plan"
    return str(fault.value)


def with_offer(plan: Plan, i: int, **changes: object) -> Plan:
    """Return the same plan with another, correctly signed offer of member `i`."""
    person = people(len(plan.offers))[i]
    return replace(
        plan,
        offers=(
            *plan.offers[:i],
            sign(person, RUN, replace(ready(TIP, person), **changes)),
            *plan.offers[i + 1 :],
        ),
    )


@given(
    size=st.integers(2, MAX_GROUP), view=st.integers(0, 99), order=st.randoms(use_true_random=False)
)
def test_a_plan_follows_from_its_offers(size: int, view: int, order: Random) -> None:
    persons = people(size)
    offers = offers_of(TIP, persons, view=view)
    plan = make_plan(TIP.hash, view, 1, offers, MANIFEST, CHUNKS, leader=persons[0].peer)
    order.shuffle(offers)
    assert make_plan(TIP.hash, view, 1, offers, MANIFEST, CHUNKS, leader=persons[0].peer) == plan
    opened = made_by(persons[0], plan)
    assert opened.members == tuple(person.peer for person in persons)
    assert [opened.index[peer] for peer in opened.members] == list(range(size))
    assert size / 2 < opened.majority <= size / 2 + 1
    assert (opened.leader, opened.digest) == (persons[0].peer, sign(persons[0], RUN, plan).digest)
    assert made_by(persons[0], plan, chunks=None).plan == plan


@given(size=st.integers(MAX_GROUP + 1, 30))
def test_more_members_than_a_group_holds_form_several(size: int) -> None:
    plan = good(size, people(size)[0])
    assert sorted(i for group in plan.groups for i in group) == list(range(size))
    assert len(plan.groups) == -(-size // MAX_GROUP)
    assert len(plan.borders) == 1 + min(len(group) for group in plan.groups)
    assert f"{size} nodes are ready, max_group is {MAX_GROUP}" in plan.reason
    made_by(people(size)[0], plan)


@settings(max_examples=3)
@given(
    ready_ones=st.integers(MAX_GROUP_LIMIT + 1, 70), view=st.integers(0, 99), i=st.integers(0, 64)
)
def test_if_too_many_are_ready_a_hash_decides_and_the_leader_stays(
    ready_ones: int, view: int, i: int
) -> None:
    persons = people(ready_ones)
    leader = persons[i]
    offers = offers_of(TIP, persons, view=view)
    plan = make_plan(TIP.hash, view, 1, offers, MANIFEST, CHUNKS, leader=leader.peer)
    assert len(plan.offers) == MAX_GROUP_LIMIT
    assert leader.peer in {offer.peer for offer in plan.offers}
    assert f"{ready_ones} nodes were ready, but a plan holds {MAX_GROUP_LIMIT}" in plan.reason
    # The others follow the plan without knowing who waits.
    made_by(leader, plan)


def test_the_members_whose_work_waits_change_with_every_view() -> None:
    persons = people(MAX_GROUP_LIMIT + 4)
    offers = offers_of(TIP, persons)
    waits: Counter[str] = Counter()
    for view in range(120):
        plan = make_plan(TIP.hash, view, 1, offers, MANIFEST, CHUNKS, leader=persons[0].peer)
        waits.update({person.peer for person in persons} - {offer.peer for offer in plan.offers})
    assert set(waits) == {person.peer for person in persons[1:]}


def test_too_few_make_no_plan() -> None:
    with pytest.raises(ValueError, match="1 offers cannot make a plan of at least 2"):
        make_plan(
            TIP.hash, 0, 1, offers_of(TIP, people(1)), MANIFEST, CHUNKS, leader=people(1)[0].peer
        )


def test_an_offer_is_refused_with_its_reason() -> None:
    plan = good()
    made_by(LEADER, with_offer(plan, 2))
    for other in ({"parent": named("elsewhere")}, {"view": 1}, {"number": 2}):
        assert "another round or view" in refused(with_offer(plan, 2, **other))
    assert "offers 1001 samples, the run allows 1000" in refused(with_offer(plan, 2, samples=1001))
    assert "offers seq 0 with 10 samples" in refused(with_offer(plan, 2, seq=0))
    assert "offers seq 1 with 0 samples" in refused(with_offer(plan, 2, samples=0))
    made_by(LEADER, with_offer(plan, 2, samples=0, seq=0))


def test_a_plan_is_refused_with_its_reason() -> None:
    plan = good()
    first, second, *rest = plan.offers
    assert "another round or view" in refused(replace(plan, view=1))
    assert "another round or view" in refused(replace(plan, parent=named("elsewhere")))
    assert "twice" in refused(replace(plan, offers=(first, first, *rest)))
    assert "a plan of 1 members" in refused(replace(plan, offers=(second,)), LEADER)
    assert "without its leader" in refused(plan, signer(50))
    for wrong in (
        replace(plan, offers=(second, first, *rest)),
        replace(plan, borders=(0, 4, 6, 8, 10)),
        replace(plan, groups=((1, 0, 2, 3),)),
        replace(plan, groups=((0, 1), (2, 3)), borders=(0, 5, 10)),
    ):
        assert "does not follow from its offers" in refused(wrong)
    paced = replace(plan, predicted_s=0.9, round_s=next_round_s(None, 0.9, MANIFEST.round))
    assert "does not follow from its offers" in refused(paced)


def test_a_plan_with_another_length_of_rounds_is_refused() -> None:
    """Also by those who read its certificate later and do not plan again."""
    plan = good()
    assert isinstance(plan, PacedPlan)
    # The offers measured nothing, and a model of a few chunks is quick on a home link.
    assert plan.round_s == round_length(None, MANIFEST.round) / MOST_CHANGE
    for wrong in (
        replace(plan, round_s=plan.round_s * 1.01),
        replace(plan, round_s=MANIFEST.round.seconds),
        replace(plan, predicted_s=5.0),
        replace(plan, round_s_before=3.0),
    ):
        assert "where its own numbers make" in refused(wrong)
        with pytest.raises(PeerFault, match="where its own numbers make"):
            read_plan(sign(LEADER, RUN, wrong), RUN, MANIFEST, CHUNKS)
    plain = Plan(**{name: getattr(plan, name) for name in Plan.__struct_fields__})
    assert "without the length of the next round" in refused(plain)


def test_a_plan_of_rules_2_has_no_length_of_rounds() -> None:
    two = replace(MANIFEST, rules=RULES_2)
    offers = offers_of(TIP, people(4))
    plan = make_plan(TIP.hash, 0, 1, offers, two, CHUNKS, leader=LEADER.peer, round_s=7.0)
    assert type(plan) is Plan
    assert open_plan(sign(LEADER, RUN, plan), RUN, two, CHUNKS).plan == plan
    with pytest.raises(PeerFault, match="rules 2 do not choose the length of rounds"):
        read_plan(sign(LEADER, RUN, good()), RUN, two, CHUNKS)


@pytest.mark.parametrize("chunks", [CHUNKS, None])
@pytest.mark.parametrize("look", [open_plan, read_plan])
def test_a_misshapen_plan_is_refused_by_every_reader(
    look: Callable[..., OpenPlan], chunks: int | None
) -> None:
    """Readers do not plan again what a majority voted for.

    So the check of the shape is what protects the readers of a chain.
    """
    plan = good()
    for wrong, why in (
        (
            replace(plan, borders=plan.borders[:-1]),
            "slices do not cover" if chunks is None else "a model of",
        ),
        (replace(plan, borders=()), "a model of None chunks"),
        (replace(plan, borders=(0, 6, 3, 8, 10)), "do not cover the model in order"),
        (replace(plan, borders=(1, 3, 6, 8, 10)), "do not cover the model in order"),
        (replace(plan, borders=(0, 10)), "do not cover the model in order"),
        (replace(plan, groups=((0, 1, 2), (3,))), "do not cover the model in order"),
        (replace(plan, groups=((0, 1, 2),)), "every member once"),
        (replace(plan, groups=((0, 1, 2, 2),)), "every member once"),
        (replace(plan, groups=((0, 1, 2, 3, 4),)), "every member once"),
        (replace(plan, groups=((0, 1, 2, 3), ())), "every member once"),
        (replace(plan, offers=plan.offers[1:]), "every member once"),
    ):
        with pytest.raises(PeerFault) as fault:
            look(sign(LEADER, RUN, wrong), RUN, MANIFEST, chunks)
        assert fault.value.reason == "bad_plan"
        assert why in str(fault.value)


def test_an_observer_accepts_the_plans_model_size_up_to_the_limit() -> None:
    most = MAX_PARAMETERS // CHUNK_ELEMENTS
    offers = offers_of(TIP, people(4))
    made_by(
        LEADER, make_plan(TIP.hash, 0, 1, offers, MANIFEST, most, leader=LEADER.peer), chunks=None
    )
    for borders in ((0, 1, 2, 3, most + 1), ()):
        assert "a plan for a model of" in refused(replace(good(), borders=borders), chunks=None)
    other_model = make_plan(TIP.hash, 0, 1, offers, MANIFEST, CHUNKS + 1, leader=LEADER.peer)
    assert f"a model of {CHUNKS + 1} chunks; the run's task makes {CHUNKS}" in refused(other_model)


def test_offers_and_plan_are_signed() -> None:
    made = Made(people(4))
    forged = replace(made.plan.offers[1], peer=made.plan.offers[2].peer)
    for plan, reason in (
        (
            replace(made.plan, offers=(made.plan.offers[0], forged, *made.plan.offers[2:])),
            "unsigned",
        ),
        (replace(made.plan, offers=(made.inclusion_signed, *made.plan.offers[1:])), "malformed"),
    ):
        with pytest.raises(PeerFault) as fault:
            made_by(made.leader, plan)
        assert fault.value.reason == reason
    other = next(person for person in people(4) if person is not made.leader)
    with pytest.raises(PeerFault) as fault:
        open_plan(replace(made.plan_signed, peer=other.peer), RUN, MANIFEST, CHUNKS)
    assert fault.value.reason == "unsigned"
    assert isinstance(made.open_plan().offers[0], Ready)
