"""The machine adopts the certificate that it assembles, and returns when the state is not usable."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.certificates.certificate import genesis, open_certificate
from protocol.messages import sign
from protocol.round import phases as p
from protocol.round.machine import begin, step
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people

PEOPLE = people(3)
MADE = Made(PEOPLE)
TIP = genesis(RUN)


def voting() -> p.State:
    """A member that has computed the outcome and waits for the others' votes."""
    me = PEOPLE[0]
    state = begin(
        p.Rules(run=RUN, me=me.peer, manifest=MANIFEST, chunks=CHUNKS),
        TIP,
        0.0,
        live=frozenset(person.peer for person in PEOPLE[1:]),
    )
    reducing = replace(
        state,
        phase=p.Phase.REDUCE,
        plan=MADE.open_plan(),
        plan_signed=MADE.plan_signed,
        cut=MADE.cut,
        cut_signed=MADE.cut_signed,
        view=MADE.vote.view,
    )
    state, _ = step(reducing, p.Computed(vote=MADE.vote), 1.0)
    assert state.phase is p.Phase.VOTE
    return state


def certified() -> tuple[p.State, list[p.Action]]:
    state = voting()
    actions: list[p.Action] = []
    for person in PEOPLE:
        vote = p.VoteGot(signed=sign(person, RUN, MADE.vote), vote=MADE.vote)
        state, more = step(state, vote, 2.0)
        actions += more
    return state, actions


def test_certify_publishes_and_adopts_in_one_step() -> None:
    state, actions = certified()
    assert state.phase is p.Phase.ADOPT
    published = [action for action in actions if isinstance(action, p.Publish)]
    adopted = [action for action in actions if isinstance(action, p.Adopt)]
    assert len(published) == len(adopted) == 1
    certificate = published[0].certificate
    assert certificate == adopted[0].certificate == state.target
    # The bytes verify like anybody else's certificate.
    assert open_certificate(certificate.raw, RUN, MANIFEST, CHUNKS) == certificate


def test_certificate_without_a_place_in_the_lineage_leads_back_to_training() -> None:
    state, _ = certified()
    assert state.target is not None
    lost = p.StateLost(certificate=state.target.hash, reason="its parent is not known any more")
    after, actions = step(state, lost, 3.0)
    assert after.phase is p.Phase.TRAIN
    assert after.tip == TIP
    assert p.TrainOn() in actions


def test_lost_state_of_another_certificate_is_ignored_while_adopting() -> None:
    state, _ = certified()
    lost = p.StateLost(certificate=TIP.hash, reason="nobody gave it")
    assert step(state, lost, 3.0) == (state, [])
