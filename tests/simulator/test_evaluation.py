"""Members score certified anchors: a held-out loss per certificate, at 2% of their time."""

from __future__ import annotations

import math

import pytest
import trio
from msgspec.structs import replace

from protocol.evaluation.budget import EVALUATION_SHARE
from protocol.journal import AnchorScored, PeerScored, RoundCertified, Warned
from protocol.run.manifest import Group, Manifest, RoundRules
from protocol.status import Status, StatusState, fold, status_at
from simulator.fakes.clock import run_virtual
from simulator.world.world import World

NODES = 3
PLAYED_S = 120.0


def world(rules: int = 3) -> World:
    return World(
        seed=3,
        nodes=NODES,
        manifest=Manifest(
            name="scored",
            task="simulated",
            rules=rules,
            group=Group(min_peers=2, max_group=8),
            round=RoundRules(seconds=2.0, ready_s=0.5, scatter_s=2.0, gather_s=2.0, vote_s=1.0),
        ),
        parameters=64,
        samples_per_second=lambda index: 100.0,
    )


def play(played: World, crash_at: float = 0.0) -> World:
    """Play for PLAYED_S. At `crash_at`, the trainer of node 0 dies."""

    async def story() -> None:
        async with played.running():
            played.start(*range(NODES))
            await trio.sleep(crash_at)
            if crash_at:
                trainer = played.nodes[0].trainer
                assert trainer is not None
                trainer.inner.crash()
            await trio.sleep(PLAYED_S - crash_at)

    run_virtual(story, seed=3)
    assert not played.invariants.broken, played.invariants.broken
    return played


def status_of(played: World, node: int) -> Status:
    state = StatusState()
    # The world starts a node without the event that names it.
    state.you = replace(state.you, peer=played.nodes[node].peer)
    for _, index, event in played.history:
        if index == node:
            fold(state, event)
    return status_at(state, 0.0)


def scores(played: World, node: int) -> list[AnchorScored]:
    events = played.events(AnchorScored, node=node)
    return [event for event in events if isinstance(event, AnchorScored)]


def test_members_score_certified_anchors_within_the_budget() -> None:
    played = play(world())
    for node in range(NODES):
        own = scores(played, node)
        assert len(own) >= 4
        spent = sum(event.seconds for event in own)
        assert spent <= EVALUATION_SHARE * PLAYED_S + own[-1].seconds
        status = status_of(played, node)
        # Every member scored another part of the 256 samples.
        assert status.run.held_out_scorers == NODES
        assert 120 <= status.run.held_out_samples <= 256
        assert status.run.held_out is not None
        assert status.run.held_out_first is not None
        assert status.run.held_out < status.run.held_out_first
        assert [point.number for point in status.held_out] == sorted(
            {point.number for point in status.held_out}
        )
    certified = {
        event.certificate
        for event in played.events(RoundCertified, node=0)
        if isinstance(event, RoundCertified)
    }
    assert {event.certificate for event in scores(played, 0)} <= certified


def test_scoring_of_anchors_survives_a_trainer_that_dies() -> None:
    crash_at = 40.0
    played = play(world(), crash_at)
    later = [
        at for at, node, event in played.history if node == 0 and isinstance(event, AnchorScored)
    ]
    assert [at for at in later if at > crash_at]


def test_members_of_rules_2_score_no_anchor() -> None:
    played = play(world(rules=2))
    assert played.number(0) > 10
    assert not played.events(AnchorScored)
    assert not played.events(PeerScored)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_model_that_cannot_be_scored_any_more_ends_no_node_and_is_named() -> None:
    """Its values are finite, and the squares in its loss are not. Beacons have finite losses."""
    played = world()

    async def story() -> None:
        async with played.running():
            played.start(*range(NODES))
            # The anchor of the round that ends next is scored.
            await trio.sleep(7.5)
            for node in played.nodes:
                assert node.trainer is not None
                node.trainer.poison = 1e22
            await trio.sleep(20.0)

    run_virtual(story, seed=3)
    assert not played.invariants.broken, played.invariants.broken
    warned = [event for event in played.events(Warned) if isinstance(event, Warned)]
    assert any("is not a number: the model has diverged" in event.message for event in warned)
    assert all(math.isfinite(score.loss) for score in scores(played, 0))
