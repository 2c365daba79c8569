"""Certificates of rules 4: voters make them, keys alone do not, and copies do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from random import Random

import pytest
from msgspec.structs import replace

from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.next_tip import extend, trust_rules
from protocol.certificates.tip import Tip, genesis_of
from protocol.errors import PeerFault
from protocol.identity import Signer
from protocol.membership.certificate_check import is_full_certificate
from protocol.messages.envelope import sign
from protocol.messages.membership import Leave
from protocol.messages.round import TrustPlan
from protocol.planning.plan import open_plan
from tests.protocol.membership.histories import manifest_of, run_of
from tests.protocol.rounds import CHUNKS, Made, named, people

PERSONS = people(9)
VOTERS, STRANGERS = PERSONS[:5], PERSONS[5:]
MANIFEST = manifest_of(person.peer for person in VOTERS)
RUN = run_of(MANIFEST)
TRUST = trust_rules(RUN, MANIFEST)
START = genesis_of(RUN, MANIFEST)


def made(
    persons: Sequence[Signer], tip: Tip = START, *, seq: int = 1, view: int = 0, **options: object
) -> Made:
    """Return a round of these people."""
    return Made(persons, tip, seq=seq, view=view, run=RUN, manifest=MANIFEST, **options)  # type: ignore[arg-type]


def opened(one: Made, signers: Sequence[Signer] | None = None) -> OpenCertificate:
    """Return the certificate with these votes, after the checks of what it proves by itself."""
    return open_certificate(one.raw(signers), RUN, MANIFEST, CHUNKS)


def follow(one: Made, signers: Sequence[Signer] | None = None) -> Tip:
    """Return the tip after the certificate with these votes. Raises `PeerFault`."""
    return extend(one.tip, opened(one, signers), trust=TRUST)


def forged(persons: Sequence[Signer], view: int = 0) -> Made:
    """Return a round of people without a vote, planned and led by one of them."""
    own = manifest_of(person.peer for person in persons)
    return Made(persons, genesis_of(RUN, own), view=view, run=RUN, manifest=own)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("view", [0, 1, 7])
def test_keys_alone_make_no_certificate(count: int, view: int) -> None:
    one = forged(STRANGERS[:count], view)
    one.tip = START
    with pytest.raises(PeerFault, match=r"does not lead|no voter"):
        follow(one)


def test_strangers_that_copy_the_record_and_a_voters_offer_need_its_vote() -> None:
    """A voter's offer and leadership are not its vote."""
    one = made(PERSONS)
    strangers = [person for person in PERSONS if person not in VOTERS]
    with pytest.raises(PeerFault, match="no voter of the run signed"):
        follow(one, strangers)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_more_than_half_of_the_voters_make_a_full_certificate(count: int) -> None:
    one = made(PERSONS)
    certificate = opened(one, [*VOTERS[:count], *STRANGERS])
    assert extend(START, certificate, trust=TRUST).number == 1
    assert START.record is not None
    assert is_full_certificate(certificate, START.record, MANIFEST) is (count >= 3)


def test_one_signature_is_no_certificate() -> None:
    with pytest.raises(PeerFault, match="1 votes"):
        follow(made(PERSONS), VOTERS[:1])


def test_only_the_voter_whose_turn_it_is_leads() -> None:
    leaders = [made(VOTERS, view=view).leader for view in range(6)]
    assert set(leaders[:5]) == set(VOTERS)
    assert leaders[5] == leaders[0]
    one = made(VOTERS)
    another = next(person for person in VOTERS if person != one.leader)
    one.leader = another
    one.plan_signed = sign(another, RUN, one.plan)
    one.inclusion = replace(one.inclusion, plan=one.plan_signed.digest)
    one.inclusion_signed = sign(another, RUN, one.inclusion)
    one.vote = replace(one.vote, plan=one.plan_signed.digest, inclusion=one.inclusion_signed.digest)
    with pytest.raises(PeerFault, match="does not lead view 0"):
        follow(one)


def test_votes_that_name_another_record_are_refused() -> None:
    one = made(VOTERS)
    one.vote = replace(one.vote, record=named("other"))
    with pytest.raises(PeerFault, match="other members"):
        follow(one)


def test_votes_of_rules_3_are_no_votes_here() -> None:
    three = Made(VOTERS, run=RUN, manifest=replace(MANIFEST, rules=3, founders=()))
    with pytest.raises(PeerFault, match="rules 4"):
        open_certificate(three.raw(), RUN, MANIFEST, CHUNKS)
    with pytest.raises(PeerFault, match="rules 4"):
        open_plan(three.plan_signed, RUN, MANIFEST, CHUNKS)


@pytest.mark.parametrize("seed", range(4))
def test_nodes_with_one_certificate_hold_one_record_whatever_copies_they_saw(seed: int) -> None:
    rng = Random(seed)
    ours = theirs = START
    votes: tuple[tuple[str, bytes], ...] = ()
    for seq in range(1, 4):
        # Three voters are always there: a quorum.
        others = rng.sample(PERSONS[3:], rng.randint(1, 6))
        persons = sorted((*PERSONS[:3], *others), key=lambda person: person.peer)
        view = next(v for v in range(5) if made(VOTERS, ours, view=v).leader in persons)
        one = made(persons, ours, seq=seq, view=view, parent_votes=votes)
        voting = [person for person in persons if person in VOTERS]
        copies = list(combinations(voting, 3))
        first, second = (rng.choice(copies) for _ in range(2))
        ours, theirs = follow(one, first), follow(one, second)
        assert ours == theirs
        assert ours.record is not None
        assert theirs.record is not None
        assert ours.record.digest == theirs.record.digest
        votes = opened(one, first).votes


def test_a_plan_lists_true_votes_of_voters_for_its_parent() -> None:
    first = made(VOTERS)
    tip, votes = follow(first), opened(first).votes
    assert follow(made(VOTERS, tip, seq=2, parent_votes=votes)).number == 2
    stranger = STRANGERS[0]
    own = (stranger.peer, sign(stranger, RUN, first.vote).signature)
    swapped = ((votes[0][0], votes[1][1]), *votes[1:])
    for wrong in (tuple(sorted((*votes, own))), swapped, votes[::-1]):
        with pytest.raises(PeerFault, match="vote"):
            follow(made(VOTERS, tip, seq=2, parent_votes=wrong))


def with_leave(one: Made, leaver: Signer, leave: Leave) -> Made:
    """Return the round with a leave in its plan."""
    assert isinstance(one.plan, TrustPlan)
    one.plan = replace(one.plan, leaves=(sign(leaver, RUN, leave),))
    one.plan_signed = one.signed(one.plan)
    one.inclusion = replace(one.inclusion, plan=one.plan_signed.digest)
    one.inclusion_signed = one.signed(one.inclusion)
    one.vote = replace(one.vote, plan=one.plan_signed.digest, inclusion=one.inclusion_signed.digest)
    return one


def test_a_leave_takes_a_vote_out_of_the_quorum_until_the_next_offer() -> None:
    leader = made(VOTERS).leader
    leaver = next(person for person in VOTERS if person != leader)
    rest = [person for person in VOTERS if person != leaver]
    leave = Leave(tip=RUN, serial=7)
    one = with_leave(made(rest), leaver, leave)
    tip = follow(one)
    assert tip.record is not None
    assert len(tip.record.counted) == 4
    assert START.record is not None
    certificate = opened(one, rest[:3])
    assert is_full_certificate(certificate, START.record, MANIFEST)
    for wrong in (replace(leave, tip=named("other")), leave):
        # An unknown tip; then the same leave once more.
        parent = START if wrong is not leave else tip
        again = [p for p in VOTERS if p != leaver]
        if made(again, parent, seq=2).leader == leaver:
            continue
        with pytest.raises(PeerFault, match="leave"):
            follow(with_leave(made(again, parent, seq=2), leaver, wrong))
    back = follow(made(VOTERS, tip, seq=3))
    assert back.record is not None
    assert len(back.record.counted) == 5


def test_newcomers_reduce_no_slice() -> None:
    plan = made(PERSONS).plan
    layout = open_plan(made(PERSONS).plan_signed, RUN, MANIFEST, CHUNKS, START.record).layout
    peers = [offer.peer for offer in plan.offers]
    newcomers = {peers.index(person.peer) for person in STRANGERS}
    assert len(peers) == 9
    assert not any(layout.sums(i) or layout.finishes(i) for i in newcomers)
    assert any(layout.sums(i) for i in range(9))
