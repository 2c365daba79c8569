"""Crowds: a founder with two hundred friends, and one card behind fifty keys."""

from __future__ import annotations

from protocol.digest import digest
from protocol.identity import PeerId
from protocol.membership.invited import Invited
from protocol.membership.role import Role, role_of
from protocol.messages.membership import MAX_VOTERS
from protocol.planning.places import placed
from protocol.run.manifest import Trust
from protocol.run.manifest_parts import MAX_GROUP_LIMIT
from tests.protocol.membership.histories import PEERS, History, manifest_of

FOUNDER, *OTHERS = PEERS[:10]
FRIENDS = tuple(f"friend-{i:03}" for i in range(200))
STRANGERS = tuple(f"stranger-{i:02}" for i in range(50))
JOINS_EVERY = 3


def pace_of(peer: PeerId) -> int:
    """Samples in a round: from 1 to 50 times the slowest."""
    return 10 * (1 + digest(peer.encode())[0] % 50)


def planned(run: History, ready: list[PeerId]) -> list[PeerId]:
    """The peers that a plan of rules 4 holds."""
    roles = {
        peer: max(role_of(run.record, run.manifest, peer), Role.MEMBER)
        if peer in FRIENDS
        else role_of(run.record, run.manifest, peer)
        for peer in ready
    }
    drawn = sorted(ready, key=lambda peer: digest(run.record.digest, peer.encode()))
    return placed(drawn, roles, run.record, MAX_GROUP_LIMIT)[:MAX_GROUP_LIMIT]


def test_a_crowd_of_two_hundred_friends_fills_the_seats_and_takes_turns() -> None:
    run = History(manifest_of((FOUNDER,), "invite"))
    here, last, waited = [FOUNDER], {FOUNDER: 0}, 0
    first_vote = seats = 0
    while len(here) < 1 + len(FRIENDS) or run.number < JOINS_EVERY * len(FRIENDS):
        if run.number % JOINS_EVERY == 0 and len(here) <= len(FRIENDS):
            joiner = FRIENDS[len(here) - 1]
            here.append(joiner)
            last[joiner] = run.number
        plan = planned(run, here)
        voters = set(run.record.voters)
        assert 2 * len(voters & set(plan)) > len(voters), "the plan holds a quorum"
        invited = {peer: Invited(name=peer, uses=1, voters=1) for peer in plan if peer in FRIENDS}
        run.certify(plan, invited=invited, weights={peer: pace_of(peer) for peer in plan})
        for peer in plan:
            waited = max(waited, run.number - last[peer] - 1)
            last[peer] = run.number
        first_vote = first_vote or (run.number if len(run.voters) > 1 else 0)
        seats = seats or (run.number if len(run.voters) == MAX_VOTERS else 0)
    assert first_vote <= 4
    assert seats <= 110
    assert waited <= 7
    assert FOUNDER in run.voters


def test_one_card_behind_fifty_keys_gets_no_vote_and_makes_no_member() -> None:
    people = (FOUNDER, *OTHERS)
    run = History(manifest_of(people))
    everybody = (*people, *STRANGERS)
    mutual = {peer: dict.fromkeys(STRANGERS[:8], True) for peer in STRANGERS}
    for _ in range(5):
        run.certify(everybody, statements=mutual, times=8)
    assert run.voters == {*people}
    roles = {role_of(run.record, run.manifest, peer) for peer in STRANGERS}
    assert roles == {Role.NEWCOMER}
    # Nine of the ten sleep for a night. The strangers inherit nothing.
    run.certify((FOUNDER, *STRANGERS), times=60)
    assert run.voters == {FOUNDER}


def test_one_card_behind_fifty_keys_gets_a_third_of_the_votes_where_work_gives_them() -> None:
    people = (FOUNDER, *OTHERS)
    run = History(manifest_of(people, trust=Trust(votes="worked")))
    favours = {peer: dict.fromkeys(STRANGERS, True) for peer in people}
    run.certify((*people, *STRANGERS), statements=favours, times=60)
    assert len(run.voters) == 15
    assert {*people} < run.voters
