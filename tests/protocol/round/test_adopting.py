"""The machine adopts a certificate that it assembles, and returns when the state is unusable."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.certificates.certificate import open_certificate
from protocol.certificates.tip import genesis
from protocol.messages.envelope import sign
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.machine import begin, step
from protocol.round.phase import Phase
from protocol.round.state import RoundState, RunContext
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people

PEOPLE = people(3)
MADE = Made(PEOPLE)
TIP = genesis(RUN)


def voting() -> RoundState:
    """Return a member that computed the outcome and waits for the others' votes."""
    me = PEOPLE[0]
    state = begin(
        RunContext(run=RUN, me=me.peer, manifest=MANIFEST, chunks=CHUNKS),
        TIP,
        0.0,
        live=frozenset(person.peer for person in PEOPLE[1:]),
    )
    reducing = replace(
        state,
        phase=Phase.REDUCE,
        plan=MADE.open_plan(),
        plan_signed=MADE.plan_signed,
        inclusion=MADE.inclusion,
        inclusion_signed=MADE.inclusion_signed,
        view=MADE.vote.view,
    )
    state, _ = step(reducing, e.OutcomeComputed(vote=MADE.vote), 1.0)
    assert state.phase is Phase.VOTE
    return state


def certified() -> tuple[RoundState, list[a.Action]]:
    state = voting()
    actions: list[a.Action] = []
    for person in PEOPLE:
        vote = e.VoteReceived(signed=sign(person, RUN, MADE.vote), vote=MADE.vote)
        state, more = step(state, vote, 2.0)
        actions += more
    return state, actions


def test_certify_publishes_and_adopts_in_one_step() -> None:
    state, actions = certified()
    assert state.phase is Phase.ADOPT
    published = [action for action in actions if isinstance(action, a.PublishCertificate)]
    adopted = [action for action in actions if isinstance(action, a.AdoptCertificate)]
    assert len(published) == len(adopted) == 1
    certificate = published[0].certificate
    assert certificate == adopted[0].certificate == state.target
    # The bytes verify like a certificate of another node.
    assert open_certificate(certificate.raw, RUN, MANIFEST, CHUNKS) == certificate


def test_certificate_without_a_place_in_the_lineage_leads_back_to_training() -> None:
    state, _ = certified()
    assert state.target is not None
    lost = e.StateUnavailable(
        certificate=state.target.hash, reason="its parent is not known any more"
    )
    after, actions = step(state, lost, 3.0)
    assert after.phase is Phase.TRAIN
    assert after.tip == TIP
    assert a.ResumeTraining() in actions


def test_lost_state_of_another_certificate_is_ignored_while_adopting() -> None:
    state, _ = certified()
    lost = e.StateUnavailable(certificate=TIP.hash, reason="no peer served it")
    assert step(state, lost, 3.0) == (state, [])
