"""The owner of a run takes it back, or goes on with other voters (rules 4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from msgspec.structs import replace

from daemon.chain.certified_feed import CertifiedFeed
from daemon.chain.certified_totals import CertifiedTotals
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.journal import JournalEvent, RoundCertified, WorkDropped
from protocol.messages.envelope import sign
from protocol.messages.membership import Recovery
from protocol.ports.offload import inline
from protocol.run.manifest import Manifest, RoundRules, seal
from protocol.run.manifest_parts import Trust
from protocol.settlement.dataset import EpochTerms, work_of
from protocol.settlement.history import CertifiedHistory, last_in_lineage, taken_back
from protocol.settlement.paid_work import PaidWork
from simulator.fakes.clock import run_virtual
from simulator.fakes.disk import MemoryDisk
from simulator.world.simulated_node import SimulatedNode
from simulator.world.world import World

GRACE_S = 20.0


def owned_world(count: int) -> World:
    """A world whose first node owns the run, and whose nodes all found it."""
    manifest = Manifest(
        name="owned",
        task="quadratic",
        rules=4,
        round=RoundRules(seconds=5.0, min_seconds=5.0, ready_s=1.0),
        trust=Trust(quorum_grace_s=GRACE_S),
    )
    world = World(seed=3, nodes=count, manifest=manifest, parameters=4096)
    owned = replace(world.manifest.open(), owner=world.nodes[0].peer)
    world.manifest = seal(owned, world.nodes[0].signer)
    return world


def played(world: World, story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with world.running():
            await story()

    run_virtual(main, seed=3)
    assert world.invariants.broken == []


def signed_by_owner(world: World, recovery: Recovery) -> None:
    """Let the first node sign a recovery, as `hypergpud run rollback` does."""
    owner = world.nodes[0]
    assert owner.engine is not None
    owner.engine.owner_records.add(sign(owner.signer, world.manifest.run, recovery))


def first_checkpoint(world: World) -> tuple[int, Digest]:
    kept = world.nodes[0].medium.checkpoints[world.manifest.run]
    one = next(one for one in kept if one.number)
    return one.number, one.tip


def tips(world: World) -> set[tuple[int, Digest]]:
    return {
        (node.state.tip.number, node.state.tip.hash)
        for node in world.nodes
        if node.alive and node.state is not None
    }


def ancestry(node: SimulatedNode) -> set[Digest]:
    assert node.engine is not None
    assert node.state is not None
    lineage = node.engine.peers.lineage
    return {one.hash for one in lineage.path(lineage.root, node.state.tip)}


def test_every_member_goes_back_with_the_owner_within_a_round() -> None:
    world = owned_world(4)

    async def story() -> None:
        world.start()
        await trio.sleep(32.0)
        number, tip = first_checkpoint(world)
        poisoned = ancestry(world.nodes[1])
        before = world.nodes[1].state
        assert before is not None
        assert before.tip.number > number + 2
        voters = tuple(sorted(node.peer for node in world.nodes))
        signed_by_owner(world, Recovery(serial=2, tip=tip, number=number, voters=voters))
        # A lower serial that arrives later changes nothing.
        signed_by_owner(world, Recovery(serial=1, tip=world.manifest.run, number=0, voters=voters))
        await trio.sleep(3.0)
        assert len(tips(world)) == 1
        assert {at for at, _ in tips(world)} == {number}
        # A node that restarts goes on from the owner's word, and a node that was away follows it.
        world.kill(1)
        await trio.sleep(1.0)
        world.start(1)
        await trio.sleep(30.0)
        assert len(tips(world)) == 1
        for node in world.nodes:
            assert node.state is not None
            assert node.state.tip.number > number + 2
            kept = {name for name in poisoned if name in ancestry(node)}
            assert len(kept) == number, "later certificates of before count no more"

    played(world, story)
    dropped = [one for one in world.events(WorkDropped) if isinstance(one, WorkDropped)]
    assert any("took the run back" in one.reason for one in dropped)


def test_a_run_without_a_quorum_goes_on_with_the_voters_that_its_owner_names() -> None:
    world = owned_world(5)

    async def story() -> None:
        world.start()
        await trio.sleep(18.0)
        for index in (2, 3, 4):
            world.kill(index)
        await trio.sleep(8.0)
        state = world.nodes[0].state
        assert state is not None
        before = state.tip
        voters = tuple(sorted(node.peer for node in world.nodes[:2]))
        signed_by_owner(
            world, Recovery(serial=1, tip=before.hash, number=before.number, voters=voters)
        )
        # Sooner than the grace would let the two go on.
        await trio.sleep(8.0)
        for node in world.nodes[:2]:
            assert node.state is not None
            assert node.state.tip.number > before.number
            assert node.state.tip.record is not None
            assert node.state.tip.record.voters == voters

    played(world, story)
    assert any(isinstance(one, RoundCertified) for one in world.events(RoundCertified))


def test_settlement_pays_no_certificate_that_the_owner_took_back() -> None:
    world = owned_world(4)
    poisoned: list[Digest] = []

    async def story() -> None:
        world.start()
        await trio.sleep(32.0)
        number, tip = first_checkpoint(world)
        before = world.nodes[0].state
        assert before is not None
        engine = world.nodes[0].engine
        assert engine is not None
        old = engine.peers.lineage.path(engine.peers.lineage.root, before.tip)
        poisoned.extend(one.hash for one in old if one.outcome.number > number)
        voters = tuple(sorted(node.peer for node in world.nodes))
        recovery = Recovery(serial=1, tip=tip, number=number, voters=voters)
        signed_by_owner(world, recovery)
        await trio.sleep(30.0)
        lineage, state = engine.peers.lineage, world.nodes[0].state
        assert state is not None
        run, manifest = world.manifest.run, world.manifest.open()
        kept = lineage.path(lineage.root, state.tip)
        history = CertifiedHistory(
            run, [*old, *(one for one in kept if one not in old)], [recovery]
        )
        assert last_in_lineage(history) is history[-1]
        assert not taken_back(history, tip)
        assert all(taken_back(history, name) for name in poisoned)
        # Before the first round after the recovery, the run ends with the certificate it names.
        early = CertifiedHistory(run, old, [recovery])
        last = last_in_lineage(early)
        assert last is not None
        assert last.hash == tip
        terms = EpochTerms(epoch=0, pool=b"\x01", tip=state.tip.hash)
        (work,) = work_of(run, manifest, [terms], history)
        counted = {one for one in kept if one.hash not in poisoned}
        assert len(work.receipts) == sum(len(one.inclusion.contributors) for one in counted)
        assert all(receipt.paid for receipt in work.receipts)
        with pytest.raises(UserError, match="not on this disk"):
            work_of(run, manifest, [terms], list(history))

    played(world, story)
    assert poisoned


def test_heartbeats_count_the_run_that_the_owner_went_back_to() -> None:
    """The feed of a node that lives through a rollback has the figures of one that starts later."""
    world = owned_world(4)
    node, run, manifest = world.nodes[1], world.manifest.run, world.manifest.open()
    known: list[Recovery] = []

    def pay_rules() -> PaidWork:
        return PaidWork(run, manifest, CertifiedHistory(run, (), known).recoveries)

    def feed_of(totals: CertifiedTotals, warned: list[JournalEvent]) -> CertifiedFeed:
        disk = MemoryDisk(node.medium)
        begin = totals.begin_anew
        return CertifiedFeed(disk, world.manifest, inline, warned.append, (totals.add,), begin)

    live, later = CertifiedTotals(node.peer, pay_rules), CertifiedTotals(node.peer, pay_rules)
    warned: list[JournalEvent] = []

    async def story() -> None:
        world.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed_of(live, warned).run)
            await trio.sleep(32.0)
            before = live.totals
            assert before[1] >= 5
            number, tip = first_checkpoint(world)
            voters = tuple(sorted(each.peer for each in world.nodes))
            known.append(Recovery(serial=1, tip=tip, number=number, voters=voters))
            signed_by_owner(world, known[0])
            await trio.sleep(12.0)
            assert live.totals[1] < before[1], "what the owner took back counts no more"
            await trio.sleep(30.0)
            feed = feed_of(later, warned)
            nursery.start_soon(feed.run)
            await feed.caught_up.wait()
            assert live.totals == later.totals
            assert live.totals[0] > 0
            assert live.now == later.now
            assert node.state is not None
            assert live.now is not None
            assert live.now.certificate in ancestry(node)
            nursery.cancel_scope.cancel()

    played(world, story)
    assert warned == []
