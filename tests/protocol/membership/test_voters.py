"""Votes: who gains one, who loses one, and who never does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.identity import PeerId
from protocol.membership.invited import Invited
from protocol.membership.record import ROUNDS_KEPT, MembershipRecord
from protocol.membership.role import Role, role_of
from protocol.membership.voters import most_absences
from protocol.messages.membership import MAX_VOTERS
from protocol.run.manifest import Trust
from tests.protocol.membership.histories import PEERS, History, manifest_of

FRIEND, OTHER, THIRD = PEERS[30:33]


def friends(*peers: PeerId, uses: int = 32, voters: int = 32) -> dict[PeerId, Invited]:
    """Return one invitation that all `peers` bring."""
    return dict.fromkeys(peers, Invited(name="friends", uses=uses, voters=voters))


def test_founders_vote_at_genesis() -> None:
    assert History(manifest_of(PEERS[:3])).record.voters == PEERS[:3]


def test_a_friend_votes_after_two_certificates_that_list_it() -> None:
    run = History(manifest_of(PEERS[:2], "invite"))
    run.certify((*PEERS[:2], FRIEND), invited=friends(FRIEND))
    assert run.voters == {*PEERS[:2]}
    assert role_of(run.record, run.manifest, FRIEND) is Role.MEMBER
    run.certify((*PEERS[:2], FRIEND))
    assert FRIEND in run.voters


def test_a_friend_that_no_certificate_lists_gets_no_vote() -> None:
    run = History(manifest_of(PEERS[:2], "invite"))
    weights = dict.fromkeys(PEERS[:2], 10)
    run.certify((*PEERS[:2], FRIEND), invited=friends(FRIEND), weights=weights, times=5)
    assert FRIEND not in run.voters


def test_one_certificate_gives_one_vote_most_weight_first() -> None:
    run = History(manifest_of(PEERS[:1], "invite"))
    everybody = (PEERS[0], FRIEND, OTHER, THIRD)
    weights = {PEERS[0]: 1, FRIEND: 5, OTHER: 9, THIRD: 7}
    run.certify(everybody, invited=friends(*everybody[1:]), weights=weights)
    gained = []
    for _ in range(4):
        before = run.voters
        run.certify(everybody, weights=weights)
        gained.append(run.voters - before)
    assert gained == [{OTHER}, {THIRD}, {FRIEND}, set()]


def test_peers_of_one_invitation_hold_as_many_votes_as_it_says() -> None:
    run = History(manifest_of(PEERS[:1], "invite"))
    everybody = (PEERS[0], FRIEND, OTHER, THIRD)
    run.certify(everybody, invited=friends(*everybody[1:], voters=2))
    run.certify(everybody, times=8)
    assert len(run.voters) == 3


def test_an_invitation_admits_as_many_peers_as_it_has_uses_in_the_order_of_ids() -> None:
    run = History(manifest_of(PEERS[:1], "invite"))
    first, second, third = sorted((FRIEND, OTHER, THIRD))
    run.certify((*PEERS[:1], first, second), invited=friends(first, second, uses=2))
    run.certify((*PEERS[:1], third), invited=friends(third, uses=2))
    assert run.record.invited == (first, second)
    again = History(manifest_of(PEERS[:1], "invite"))
    again.certify((*PEERS[:1], first, second, third), invited=friends(first, second, third, uses=1))
    assert again.record.invited == (first,)


def test_a_stranger_becomes_a_member_by_the_word_of_a_third_and_never_votes() -> None:
    run = History(manifest_of(PEERS[:6]))
    everybody = (*PEERS[:6], FRIEND)
    run.certify(everybody, statements={peer: {FRIEND: True} for peer in PEERS[:2]})
    assert role_of(run.record, run.manifest, FRIEND) is Role.NEWCOMER, "two of six are a third"
    run.certify(everybody, statements={PEERS[2]: {FRIEND: True}})
    assert role_of(run.record, run.manifest, FRIEND) is Role.MEMBER
    run.certify(everybody, statements={peer: {FRIEND: False} for peer in PEERS[3:6]})
    assert role_of(run.record, run.manifest, FRIEND) is Role.NEWCOMER, "three for, three against"
    run.certify(everybody, statements={PEERS[3]: {FRIEND: True}}, times=40)
    assert role_of(run.record, run.manifest, FRIEND) is Role.MEMBER, "the last word stands"
    assert FRIEND not in run.voters


def test_no_stranger_is_a_member_where_nobody_audits() -> None:
    run = History(manifest_of(PEERS[:2], trust=Trust(audit="none")))
    run.certify((*PEERS[:2], FRIEND), statements={peer: {FRIEND: True} for peer in PEERS[:2]})
    assert role_of(run.record, run.manifest, FRIEND) is Role.NEWCOMER


def test_statements_of_peers_without_a_vote_say_nothing() -> None:
    run = History(manifest_of(PEERS[:1]))
    run.certify((PEERS[0], OTHER, FRIEND), statements={OTHER: {FRIEND: True, PEERS[0]: False}})
    assert role_of(run.record, run.manifest, FRIEND) is Role.NEWCOMER
    assert run.voters == {PEERS[0]}


def test_strangers_vote_by_their_work_where_the_manifest_says_so() -> None:
    run = History(manifest_of(PEERS[:4], trust=Trust(votes="worked")))
    strangers = PEERS[30:36]
    everybody = (*PEERS[:4], *strangers)
    favours = {peer: dict.fromkeys(strangers, True) for peer in PEERS[:4]}
    run.certify(everybody, statements=favours, times=15)
    assert run.voters == {*PEERS[:4]}
    run.certify(everybody, times=10)
    assert len(run.voters) == 6, "at most a third of all votes"
    idle = History(manifest_of(PEERS[:4], trust=Trust(votes="worked")))
    weights = {**dict.fromkeys(PEERS[:4], 100), **dict.fromkeys(strangers, 24)}
    idle.certify(everybody, statements=favours, weights=weights, times=40)
    assert idle.voters == {*PEERS[:4]}, "less than a quarter of the median voter's weight"


@pytest.mark.parametrize("voters", [2, 4, 7, 10])
def test_silence_takes_a_vote_after_eight_plans_or_twice_the_voters(voters: int) -> None:
    run = History(manifest_of(PEERS[:voters]))
    most = max(8, 2 * voters)
    run.certify(PEERS[1:voters], times=most - 1)
    assert PEERS[0] in run.voters
    run.certify(PEERS[1:voters])
    assert PEERS[0] not in run.voters


def test_an_offer_starts_the_count_of_absences_anew() -> None:
    run = History(manifest_of(PEERS[:3]))
    for _ in range(5):
        run.certify(PEERS[1:3], times=7)
        run.certify(PEERS[:3], weights={PEERS[1]: 1})
    assert PEERS[0] in run.voters


def test_a_founder_that_lost_its_vote_gains_it_like_a_friend() -> None:
    run = History(manifest_of(PEERS[:3]))
    run.certify(PEERS[1:3], times=8)
    assert run.voters == {*PEERS[1:3]}
    run.certify(PEERS[:3])
    assert run.voters == {*PEERS[1:3]}
    run.certify(PEERS[:3])
    assert run.voters == {*PEERS[:3]}


def test_more_than_half_of_the_voters_take_a_vote() -> None:
    run = History(manifest_of(PEERS[:4]))
    run.certify(PEERS[:4], statements={peer: {PEERS[0]: False} for peer in PEERS[1:3]})
    assert PEERS[0] in run.voters, "two of four are not more than half"
    run.certify(PEERS[:4], statements={PEERS[3]: {PEERS[0]: False}})
    assert run.voters == {*PEERS[1:4]}
    run.certify(PEERS[:4], times=5)
    assert PEERS[0] not in run.voters, "no vote while more than half are against it"


def test_one_of_two_cannot_take_the_others_vote() -> None:
    run = History(manifest_of(PEERS[:2]))
    run.certify(PEERS[:2], statements={PEERS[0]: {PEERS[1]: False}}, times=9)
    assert run.voters == {*PEERS[:2]}


def test_a_revoked_peer_loses_vote_membership_and_invitation() -> None:
    run = History(manifest_of(PEERS[:2], "invite"))
    run.certify((*PEERS[:2], FRIEND), invited=friends(FRIEND), times=2)
    assert FRIEND in run.voters
    run.certify((*PEERS[:2], FRIEND), revoked=[FRIEND])
    run.certify((*PEERS[:2], FRIEND), invited=friends(FRIEND), times=5)
    assert FRIEND not in run.voters
    assert role_of(run.record, run.manifest, FRIEND) is Role.NEWCOMER


def test_a_vote_that_left_does_not_count_until_the_next_offer() -> None:
    run = History(manifest_of(PEERS[:2]))
    run.certify(PEERS[:1], leaves={PEERS[1]: 7})
    assert run.voters == {*PEERS[:2]}
    assert run.record.counted == PEERS[:1]
    run.certify(PEERS[:1])
    assert run.record.counted == PEERS[:1], "the leave is listed once"
    run.certify(PEERS[:2])
    assert run.record.counted == PEERS[:2]
    assert run.record.leaves == {PEERS[1]: 7}


def test_votes_are_counted_even_when_all_left() -> None:
    run = History(manifest_of(PEERS[:2]))
    run.certify((), leaves={PEERS[0]: 1, PEERS[1]: 1})
    assert run.record.counted == PEERS[:2]


Certificates = st.lists(
    st.tuples(
        # Who offers, and whose work the leader leaves out.
        st.sets(st.sampled_from(PEERS), max_size=40),
        st.sets(st.sampled_from(PEERS), max_size=40),
        st.dictionaries(
            st.sampled_from(PEERS),
            st.dictionaries(st.sampled_from(PEERS), st.booleans(), max_size=3),
            max_size=6,
        ),
        st.dictionaries(st.sampled_from(PEERS), st.integers(0, 3), max_size=3),
        st.integers(1, 12),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(certificates=Certificates, founders=st.integers(1, 8))
def test_any_history_keeps_the_rules_of_votes(
    certificates: list[
        tuple[
            set[PeerId],
            set[PeerId],
            dict[PeerId, dict[PeerId, bool]],
            dict[PeerId, int],
            int,
        ]
    ],
    founders: int,
) -> None:
    """At most 32 voters, one new vote for each certificate, and none lost by slowness."""
    run = History(manifest_of(PEERS[:founders], "invite"))
    invited = friends(*PEERS)
    for offering, slow, statements, leaves, times in certificates:
        for _ in range(times):
            before = run.record
            run.certify(
                offering,
                weights=dict.fromkeys(offering - slow, 3),
                statements=statements,
                invited=invited,
                leaves=leaves,
            )
            after = run.record
            assert len(set(after.voters) - set(before.voters)) <= 1
            assert 1 <= len(after.voters) <= MAX_VOTERS
            assert after.voters == tuple(sorted(set(after.voters)))
            assert set(after.counted) <= set(after.voters)
            assert len(after.recent) <= ROUNDS_KEPT
            for lost in set(before.voters) - set(after.voters):
                silent = before.absences.get(lost, 0) + 1 >= most_absences(before)
                opposed = 2 * after_against(before, after, lost) > len(before.voters)
                assert opposed or (silent and lost not in offering)
            # The same facts give the same record, and equal records have one name.
            assert after.digest != before.digest


def after_against(before: MembershipRecord, after: MembershipRecord, peer: PeerId) -> int:
    """Count the voters before a certificate that are against `peer` after it."""
    said = {**before.said.get(peer, {}), **after.said.get(peer, {})}
    return sum(not favours for voter, favours in said.items() if voter in before.voters)
