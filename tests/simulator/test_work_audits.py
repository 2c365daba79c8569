"""Voters audit work in a simulated run: honest members pass, and cheats are named."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace

from daemon.services.training.native.audit.contributions import PROTOCOL
from protocol.audit.score import AUDITS, NO_WORK
from protocol.journal import WorkAudited
from protocol.membership.role import Role, role_of
from protocol.run.manifest import Group, Manifest, RoundRules
from protocol.run.manifest_parts import Admission, Trust
from protocol.settlement.paid_work import paid_work
from simulator.fakes import trainer as trainer_fake
from simulator.fakes.clock import run_virtual
from simulator.world.world import World

NODES = 4
CHEAT = 3
MANIFEST = Manifest(
    name="audited",
    task="simulated",
    rules=4,
    group=Group(min_peers=2, max_group=8),
    round=RoundRules(seconds=2.0, ready_s=0.5, scatter_s=2.0, gather_s=2.0, vote_s=1.0),
)


@pytest.fixture(autouse=True)
def cheap_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the budget allow an audit in nearly every round, so that a run of minutes has enough."""
    monkeypatch.setattr(trainer_fake, "EVALUATION_SPEED", 60.0)


def play(
    poison: float = 1.0,
    manifest: Manifest = MANIFEST,
    played_s: float = 150.0,
    seed: int = 3,
    lie: str | None = None,
    refuses_audits: bool = False,
) -> World:
    played = World(
        seed=seed,
        nodes=NODES,
        manifest=manifest,
        # With fewer, the patterns of a round's samples cannot be told apart.
        parameters=256,
        samples_per_second=lambda index: 200.0,
    )

    async def story() -> None:
        async with played.running():
            played.start(*range(NODES))
            await trio.sleep(0.1)
            trainer = played.nodes[CHEAT].trainer
            assert trainer is not None
            trainer.poison = poison
            played.lie(CHEAT, lie)
            if refuses_audits:
                assert played.nodes[CHEAT].network is not None
                played.nodes[CHEAT].network.refuse_protocol(PROTOCOL)
            await trio.sleep(played_s)

    run_virtual(story, seed=seed)
    assert not played.invariants.broken, played.invariants.broken
    return played


def audits_of(played: World, node: int) -> list[WorkAudited]:
    peer = played.nodes[node].peer
    events = played.events(WorkAudited)
    return [event for event in events if isinstance(event, WorkAudited) and event.peer == peer]


@pytest.mark.parametrize(
    ("seed", "poison"),
    [
        (3, 0.0),
        (6, -1.0),
        *(
            pytest.param(seed, poison, marks=pytest.mark.slow)
            for seed in (3, 4, 5, 6)
            for poison in (0.0, -1.0)
            if (seed, poison) not in {(3, 0.0), (6, -1.0)}
        ),
    ],
)
def test_audits_speak_against_a_cheat_and_never_against_honest_members(
    seed: int, poison: float
) -> None:
    """Story 38: a cheat is found in three audits of one voter."""
    played = play(poison, seed=seed)
    cheat = played.nodes[CHEAT].peer
    for node in range(NODES):
        audits = audits_of(played, node)
        assert len(audits) >= 12
        # The work of the first rounds is nearly the same whatever the samples.
        later = audits[len(audits) // 2 :]
        if node == CHEAT:
            assert all(audit.score < 0.3 for audit in later)
            assert all(audit.favours is not True for audit in audits)
        else:
            assert not any(audit.favours is False for audit in later)
            assert sum(audit.score for audit in later) >= 0.75 * len(later)
            assert not any(audit.reason for audit in audits)
    judged = [audit for audit in audits_of(played, CHEAT) if audit.favours is not None]
    assert judged[0].favours is False
    assert len(judged[0].scores) <= 5
    # The statements are in the membership record of everybody.
    for honest in played.nodes[:CHEAT]:
        assert honest.engine is not None
        assert honest.engine.state is not None
        record = honest.engine.state.tip.record
        assert record is not None
        assert record.speaks_against(cheat) == CHEAT


FOUND = ("noise", "stale_work", "foreign_work", "replayed_mean", "tenth_of_steps")


@pytest.mark.parametrize(
    "lie",
    [
        "replayed_mean",
        *(pytest.param(lie, marks=pytest.mark.slow) for lie in FOUND if lie != "replayed_mean"),
    ],
)
def test_audits_find_work_that_was_not_trained_on_its_samples_within_five(lie: str) -> None:
    """Story 38."""
    audits = audits_of(play(lie=lie, played_s=90.0), CHEAT)
    first = next(audit for audit in audits if audit.favours is not None)
    assert first.favours is False
    assert len(first.scores) <= AUDITS
    assert not any(audit.favours for audit in audits)


def test_audits_speak_against_a_member_that_refuses_them() -> None:
    audits = audits_of(play(refuses_audits=True, played_s=60.0), CHEAT)
    assert {audit.score for audit in audits} == {NO_WORK}
    assert all(audit.reason for audit in audits)
    first = next(audit for audit in audits if audit.favours is not None)
    assert first.favours is False
    assert len(first.scores) <= AUDITS


@pytest.mark.slow
def test_audits_do_not_condemn_half_of_the_steps() -> None:
    """Story 38: half of the steps are work, and rule 12 bounds what is claimed for them."""
    audits = audits_of(play(lie="half_of_steps", played_s=90.0), CHEAT)
    assert len(audits) >= 12
    assert not any(audit.favours is False for audit in audits)


def test_audits_make_a_working_stranger_a_member_and_leave_a_free_rider_unpaid() -> None:
    """Figures of issue 16: a free rider's share of pay is 0, after three audits and before."""
    names = [node.peer for node in World(seed=3, nodes=NODES, manifest=MANIFEST).nodes]
    manifest = replace(
        MANIFEST, founders=tuple(sorted(names[:2])), admission=Admission(policy="open")
    )
    played = play(0.0, manifest, 250.0)
    worker, rider = names[2], names[CHEAT]
    node = played.nodes[0]
    assert node.engine is not None
    assert node.engine.state is not None
    tip = node.engine.state.tip
    assert tip.record is not None
    assert role_of(tip.record, manifest, worker) is Role.MEMBER
    assert role_of(tip.record, manifest, rider) is Role.NEWCOMER
    certificates = {
        certificate.hash: certificate
        for certificate in node.engine.peers.lineage.path(node.engine.peers.lineage.root, tip)
    }
    run = played.manifest.run
    paid = paid_work(run, manifest, certificates, dict.fromkeys(certificates, 0))
    earned = dict.fromkeys(names, 0)
    counted = dict.fromkeys(names, 0)
    for certificate in certificates.values():
        for index in certificate.inclusion.contributors:
            peer = certificate.plan.members[index]
            counted[peer] += certificate.plan.offers[index].samples
            earned[peer] += paid.pay(certificate, index).samples
    assert counted[rider] > 0
    assert earned[rider] == 0
    assert earned[worker] > counted[worker] / 2
    for founder in names[:2]:
        assert earned[founder] > 0.9 * counted[founder]


def test_no_audits_where_the_data_is_private() -> None:
    played = play(manifest=replace(MANIFEST, trust=Trust(audit="none")), played_s=20.0)
    assert not played.events(WorkAudited)
