"""Stories of votes: who votes, voters that leave and return, and branches that meet (rules 4)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.averaging.step_norm import MOST_USUAL, usual_norm
from protocol.journal import RoundCertified, Warned
from protocol.messages.round import TrustVote
from simulator.faults.fault import SkewClock
from simulator.playback.player import play
from simulator.scenarios.attackers import STAYERS
from simulator.scenarios.catalog import TRUST, scenario

# Each of them takes about three seconds or more.
LONG = (
    "trust-ten-seven-die",
    "trust-seven-return",
    "trust-seven-poisoned",
    "trust-even-split-6",
    "trust-even-split-8",
    "trust-two-next-day",
    "trust-split-clocks",
    "trust-churn",
    "trust-siblings-often",
    "trust-two-of-many-graced",
    "trust-old-keys",
    "trust-private-branch-merges",
    "trust-merge-poison",
    "trust-joiner-eclipsed",
    "trust-censoring-leaders",
    "trust-copies-differ",
    "trust-keys-since-departure",
    "trust-sleeper",
    "trust-overclaimed-zeros",
    "trust-noise",
    "trust-negated",
    "trust-stale-work",
    "trust-foreign-work",
    "trust-replayed-mean",
    "trust-tenth-of-steps",
    "trust-half-of-steps",
)


@pytest.mark.parametrize("name", [name for name in TRUST if name not in LONG])
def test_trust_story(name: str) -> None:
    _reaches_what_it_must(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_long_trust_story(name: str) -> None:
    _reaches_what_it_must(name)


def _reaches_what_it_must(name: str) -> None:
    played = play(scenario(name, None, 1))
    assert played.report is not None
    assert played.report.ok, f"{played.report.reason}\n{played.story.text()}"


def test_merge_right_after_a_certificate_finds_its_leader_in_the_first_view() -> None:
    """No beacon at the new tip has come, and each of four nodes once led a view of its own."""
    played = play(scenario("trust-split-4-2", None, 1))
    merges = [
        event
        for event in played.world.events(RoundCertified, node=2)
        if isinstance(event, RoundCertified) and not event.shares and event.state_digest
    ]
    assert [merge.view for merge in merges] == [0]


@pytest.mark.slow
@pytest.mark.parametrize("a_day_later", [True, False])
def test_nodes_that_held_a_branch_for_a_day_name_the_command_that_leaves_it(
    a_day_later: bool,
) -> None:
    """The day began in an earlier life of each node. Without that day there is nothing to say."""
    story = scenario("trust-keys-since-departure", None, 1)
    if not a_day_later:
        days = tuple(each for each in story.schedule if not isinstance(each, SkewClock))
        story = replace(story, schedule=days)
    played = play(story)
    warned = {
        node.index: event.message
        for node in played.world.nodes
        for event in played.world.events(Warned, node=node.index)
        if isinstance(event, Warned) and event.code == "FINAL"
    }
    assert set(warned) == ({*STAYERS} if a_day_later else set())
    assert all("hypergpud run follow" in message for message in warned.values())


def test_first_mean_after_lone_training_is_scaled_to_three_usual_steps() -> None:
    """Marks grow with each stretch, so the offers of 60 lone rounds are far above a usual step."""
    story = replace(scenario("trust-all-long-offers", None, 1), marked=True)
    played = play(replace(story, wanted=replace(story.wanted, learns=False)))
    assert played.report is not None
    assert played.report.ok, played.report.reason
    engine = played.world.nodes[0].engine
    assert engine is not None
    lineage, tip = engine.peers.lineage, engine.state_store.tip
    path = lineage.path(lineage.root, tip)
    first = next(
        place
        for place, one in enumerate(path)
        if min(offer.samples for offer in one.plan.offers) > 1000
    )
    norms = [one.outcome.step_norm for one in path if isinstance(one.outcome, TrustVote)]
    assert norms[first] == pytest.approx(MOST_USUAL * usual_norm(norms[:first]), rel=1e-4)
