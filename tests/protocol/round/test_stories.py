"""Short stories, each with the failure it once had: the round machine where the random ones seldom
come.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.certificates.leader_order import leader_of, vote_collectors
from protocol.messages.base import Signed
from protocol.messages.envelope import open_signed
from protocol.messages.round import Vote
from protocol.round import events as e
from protocol.round.phase import Phase
from tests.protocol.round.cargo import Result, Slice
from tests.protocol.round.test_village import heal
from tests.protocol.round.village import Letter, Village
from tests.protocol.round.villager import CHUNKS, Villager


def kind_of(village: Village, letter: Letter) -> type[object]:
    """What a letter is, or what is inside it."""
    content = letter.content
    return (
        type(open_signed(content, village.run_id, trusted=True))
        if isinstance(content, Signed)
        else type(content)
    )


def flow_without(village: Village, wanted: Callable[[Letter], bool]) -> None:
    """Everything happens but those letters, which are held."""
    while any(not wanted(letter) for letter in village.wire) or any(
        villager.inbox or villager.work for villager in village.alive()
    ):
        village.held += [letter for letter in village.wire if wanted(letter)]
        village.wire = [letter for letter in village.wire if not wanted(letter)]
        village.flow(1)
    village.held, village.wire = village.held + village.wire, []


def until(village: Village, phase: Phase, ticks: int = 50) -> None:
    """Everybody comes to one phase."""
    for _ in range(ticks):
        if all(villager.state.phase is phase for villager in village.alive()):
            return
        village.tick_next()
        village.flow()
    raise AssertionError(f"not everybody came to {phase.value}")


def offers_made(village: Village) -> None:
    """Training ends everywhere."""
    for villager in village.alive():
        if villager.state.phase is Phase.TRAIN:
            villager.see(
                e.DeadlinePassed()
                if villager.state.deadline > village.now
                else e.TrainingFinished()
            )
    for villager in village.alive():
        while villager.work:
            villager.finish()
            villager.run()


def test_two_that_lost_each_other_meet_again() -> None:
    """A connection that breaks and comes back in one round left each taken for lost by the other,
    for good.
    """
    village = Village(2, settled=2)
    for villager, other in zip(village.villagers, reversed(village.villagers), strict=True):
        villager.lose(other.me)
        villager.run()
    assert heal(village, rounds=1, ticks=12) <= 12


def test_late_votes_never_make_a_certificate_whose_state_nobody_holds() -> None:
    """All went on to sum the next view when the last vote of an earlier one arrived: its state was
    overwritten everywhere.
    """
    village = Village(3, settled=3)
    offers_made(village)
    flow_without(village, lambda letter: kind_of(village, letter) is Vote)
    assert {villager.state.phase for villager in village.villagers} == {Phase.VOTE}
    votes, village.held = village.held, []
    # Its leader comes to the next view last: it hears of everybody before it plans, whatever the
    # order of leaders.
    following = leader_of(village.villagers[0].state.leader_order, 1)
    for villager in sorted(village.villagers, key=lambda villager: villager.me == following):
        # Or the leader went before, and took it along.
        while villager.state.phase is Phase.VOTE:
            villager.see(e.DeadlinePassed())
            villager.run()
        flow_without(village, lambda letter: kind_of(village, letter) in {Vote, Result})
    assert {(villager.state.phase, villager.state.view) for villager in village.villagers} == {
        (Phase.REDUCE, 1)
    }
    for letter in votes:
        village.deliver(letter)
    heal(village, rounds=1, ticks=30)


def test_when_nobody_has_anything_to_offer_everybody_trains_on() -> None:
    """The same empty offers were planned and cut again and again, as fast as the network carried
    them, and nobody ever trained.
    """
    village = Village(3, settled=3)
    for villager in village.villagers:
        villager.samples = 0
    offers_made(village)
    village.flow(2000)
    assert not village.wire
    assert all(villager.state.phase is Phase.TRAIN for villager in village.villagers)
    for villager in village.villagers:
        villager.samples = 10
    heal(village, rounds=2, ticks=20)


def test_more_than_a_row_holds_make_several_and_all_are_in_the_plan() -> None:
    village = Village(7, settled=7, max_group=3)
    for _ in range(5):
        number = village.villagers[0].state.number
        heal(village, rounds=1, ticks=40)
        assert village.villagers[0].state.tip.number == number
        assert len(village.villagers[0].state.tip.members) == 7
    assert {view for _, view in village.certificates} == {0}


def test_a_member_that_hangs_costs_its_contribution_and_not_the_view() -> None:
    """The leader, which lacked the same slice as everybody, took itself for silent, and cut itself
    out of the round.
    """
    village = Village(4, settled=4)
    offers_made(village)
    leader = village.named(village.villagers[0].state.leader)
    hung = next(villager for villager in village.villagers if villager is not leader)
    flow_without(
        village, lambda letter: letter.sender == hung.me and isinstance(letter.content, Slice)
    )
    # Nothing breaks: it only says nothing any more.
    hung.alive = False
    for _ in range(6):
        village.tick_next()
        village.flow()
    others = [villager for villager in village.villagers if villager is not hung]
    assert {villager.state.tip.number for villager in others} == {2}
    assert {view for _, view in village.certificates} == {0}
    assert hung.me not in leader.state.tip.last_seq or leader.state.tip.last_seq[hung.me] == 1


def test_many_views_that_came_to_votes_do_not_stop_the_next() -> None:
    """Votes were kept for eight outcomes of a round, and none was taken after that."""
    village = Village(2, settled=2)
    offers_made(village)
    for view in range(12):
        flow_without(village, lambda letter: kind_of(village, letter) is Vote)
        assert {(villager.state.phase, villager.state.view) for villager in village.villagers} == {
            (Phase.VOTE, view)
        }
        village.held.clear()
        for _ in range(2):
            for villager in village.villagers:
                villager.see(e.DeadlinePassed())
                villager.run()
    village.flow()
    assert {villager.state.tip.number for villager in village.villagers} == {2}


def _takers(village: Village) -> list[Villager]:
    state = village.villagers[0].state
    return [
        village.named(peer)
        for peer in vote_collectors(state.leader_order, state.leader_order.index(state.leader))
    ]


def _third_taker_sums(village: Village) -> bool:
    """Whether one of the five slices belongs to the third of those who take the votes: among seven,
    two have none.
    """
    return village.villagers.index(_takers(village)[2]) < CHUNKS


def test_a_majority_without_those_who_take_the_votes_does_not_wait_for_the_deadline() -> None:
    """A reducer died when all but two had its result: four of seven voted under the first cut, and
    the two living takers, who came to another state, could not certify that one, nor get a
    majority for theirs.
    """
    village = next(
        village
        for seed in range(32)
        if _third_taker_sums(village := Village(7, settled=7, seed=seed))
    )
    offers_made(village)
    leader, second, third = _takers(village)

    def kept_back(letter: Letter) -> bool:
        if letter.sender == third.me and isinstance(letter.content, Result):
            return letter.to in (leader.me, second.me)
        return third.me in (letter.sender, letter.to) and kind_of(village, letter) is Vote

    flow_without(village, kept_back)
    assert [villager.state.phase for villager in (leader, second)] == [Phase.REDUCE, Phase.REDUCE]
    assert sum(villager.state.phase is Phase.VOTE for villager in village.villagers) == 5
    village.held.clear()
    before = village.now
    third.alive = False
    for villager in village.alive():
        villager.lose(third.me)
        villager.run()
    village.flow()
    assert village.now == before
    assert {villager.state.tip.number for villager in village.alive()} == {2}


def test_one_of_those_who_take_the_votes_tells_everybody_and_the_next_one_where_it_is_gone() -> (
    None
):
    village = Village(5, settled=5)
    offers_made(village)
    first = village.villagers[0].state.leader
    village.flow()
    assert village.gossiped == [first]

    village = Village(5, settled=5)
    offers_made(village)
    state = village.villagers[0].state
    leader, second, _ = vote_collectors(state.leader_order, state.leader_order.index(state.leader))
    flow_without(village, lambda letter: kind_of(village, letter) is Vote)
    village.named(leader).alive = False
    for villager in village.alive():
        villager.lose(leader)
        villager.run()
    village.wire, village.held = village.held, []
    village.flow()
    assert village.gossiped == [second]
    assert {villager.state.tip.number for villager in village.alive()} == {2}


def test_the_certificate_of_the_own_tip_is_no_news() -> None:
    """Told again after it was adopted, it was downloaded again, and the training since was lost."""
    village = Village(3, settled=3)
    heal(village, rounds=1, ticks=8)
    villager: Villager = village.villagers[0]
    made = villager.lineage.entry(villager.state.tip.hash)
    assert made is not None
    villager.see(e.CertificateReceived(certificate=made.certificate))
    assert villager.state.phase is Phase.TRAIN
    assert not villager.work


def test_a_leader_that_the_others_passed_over_is_not_waited_for() -> None:
    """A leader was stopped, and the next one was taken along before it had noticed: it waited for
    the dead one's offer to the view's end.
    """
    village = Village(4, settled=4)
    offers_made(village)
    dead = village.named(village.villagers[0].state.leader)
    following = village.named(leader_of(dead.state.leader_order, 1))
    dead.alive = False
    for villager in village.villagers:
        if villager not in (dead, following):
            villager.lose(dead.me)
            villager.run()
    village.flow()  # no deadline passes
    assert dead.me not in following.state.lost
    assert {villager.state.tip.number for villager in village.alive()} == {2}
    assert {view for _, view in village.certificates} == {1}


def test_a_leader_that_was_passed_over_and_lives_is_in_the_plan_when_it_is_ready() -> None:
    """Passed over means not waited for, and nothing else."""
    village = Village(4, settled=4)
    offers_made(village)
    passed = village.named(village.villagers[0].state.leader)
    # It never hears an offer, and gives its view up as the others do.
    village.wire.clear()
    for villager in [passed, *(other for other in village.villagers if other is not passed)]:
        village.tick(villager)
    village.flow()
    assert {villager.state.tip.number for villager in village.alive()} == {2}
    assert all(passed.me in villager.state.tip.members for villager in village.alive())


def test_whoever_is_started_again_in_the_middle_of_a_view_says_nothing_in_it_a_second_time() -> (
    None
):
    """All voted, the power went, and all came back: the same leader planned the same view again,
    and everybody voted in it again.
    """
    village = Village(3, settled=3)
    offers_made(village)
    flow_without(village, lambda letter: kind_of(village, letter) is Vote)
    assert {(villager.state.phase, villager.state.view) for villager in village.villagers} == {
        (Phase.VOTE, 0)
    }
    village.held.clear()
    village.wire.clear()
    for villager in village.villagers:
        village.restart(villager)
    assert {villager.state.view for villager in village.villagers} == {1}
    heal(village, rounds=1, ticks=20)
    assert {view for _, view in village.certificates} == {1}


def test_where_a_node_stood_in_a_merge_is_not_forgotten_either() -> None:
    """A merge has no scatter: its plan is followed by a vote."""
    village = Village(4, settled=4)
    sides = village.villagers[:2], village.villagers[2:]
    village.part(frozenset(villager.me for villager in sides[0]))
    for _ in range(8):
        village.tick_next()
        village.flow()
    assert len({villager.state.tip.hash for villager in village.villagers}) == 2
    village.part(frozenset())
    for villager in village.villagers:
        for other in village.villagers:
            for certificate in other.lineage.path(villager.lineage.root, other.state.tip):
                villager.learn(certificate.raw)
        villager.hear_beacons()
        villager.run()
    last_votes: list[Villager] = []
    # Whose turn it is to lead may take a deadline.
    for _ in range(8):
        flow_without(village, lambda letter: kind_of(village, letter) is Vote)
        if last_votes := [
            villager
            for villager in village.villagers
            if villager.state.phase is Phase.VOTE and villager.state.merge
        ]:
            break
        village.tick_next()
    assert last_votes
    parent, view = last_votes[0].state.parent, last_votes[0].state.view
    village.held.clear()
    for villager in last_votes:
        village.restart(villager)
        assert villager.state.view_records[parent] == view + 1
    heal(village, rounds=1, ticks=60)


def test_a_node_that_cannot_write_down_where_it_stands_watches() -> None:
    """It neither scatters nor votes nor leads; the others go on, and it goes along."""
    village = Village(4, settled=4)
    offers_made(village)
    leader = village.named(village.villagers[0].state.leader)
    follower = next(villager for villager in village.villagers if villager is not leader)
    follower.disk_full = True
    village.flow()
    assert village.held == []
    assert follower.view_records == {}
    heal(village, rounds=1, ticks=20)
    leader = village.named(village.villagers[0].state.leader)
    leader.disk_full, follower.disk_full = True, False
    stood = dict(leader.view_records)
    heal(village, rounds=2, ticks=60)
    assert leader.view_records == stood


def test_a_reducer_that_dies_when_all_but_one_have_its_result_costs_nothing() -> None:
    """The leader had all and voted, so that no cut named a substitute.

    One member lacked the dead reducer's slice, and all waited for the end of the view: 10 s with
    the default deadlines, in one of 12 to 15 kills.
    """
    village = Village(4, settled=4)
    offers_made(village)
    leader = village.named(village.villagers[0].state.leader)
    takers = vote_collectors(leader.state.leader_order, 0)
    dead = next(villager for villager in village.villagers if villager.me not in takers)
    lacking = village.named(takers[1])
    flow_without(
        village,
        lambda letter: (
            letter.sender == dead.me
            and (
                kind_of(village, letter) is Vote
                or (isinstance(letter.content, Result) and letter.to == lacking.me)
            )
        ),
    )
    assert (leader.state.phase, lacking.state.phase) == (Phase.VOTE, Phase.REDUCE)
    village.held.clear()
    dead.alive = False
    before = village.now
    for villager in village.alive():
        villager.lose(dead.me)
        villager.run()
    village.flow()
    assert {villager.state.tip.number for villager in village.alive()} == {2}
    assert {view for _, view in village.certificates} == {0}
    assert village.now == before, "nobody waited for a deadline"
