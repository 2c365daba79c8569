"""Training during the exchange: golden traces of the shift, and no step twice at any instant."""

from __future__ import annotations

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.averaging.vector_layout import Vector
from protocol.run.manifest import RoundRules
from simulator.fakes.clock import run_virtual
from tests.daemon.training.scripted_trainer import PARAMETERS, LinkedNode


def steps(first: int, stop: int) -> Vector:
    """The displacement of steps [first, stop)."""
    vector = np.zeros(PARAMETERS, np.float32)
    vector[first:stop] = 1.0
    return vector


def anchor(number: int) -> Vector:
    """An anchor from elsewhere, exact in float32."""
    return np.full(PARAMETERS, 8.0 * number, np.float32)


@pytest.mark.parametrize("listed", [True, False])
def test_overlap_golden_trace_of_two_rounds(listed: bool) -> None:
    """Ten steps, an offer, four steps during the exchange, an adoption, three steps, an offer.

    The figures of this test follow from TRAINING's rules in plain numpy.
    """

    async def story() -> None:
        node = LinkedNode()
        ledger, trainer = node.store.ledger, node.trainer
        await node.link.begin()
        trainer.step(10)
        await node.offer()
        assert (ledger.offer.weight, ledger.drawn) == (10, 10)
        trainer.step(4)
        assert trainer.lane == node.store.tip.reserve_lane(node.store.me)
        assert (trainer.flat == -steps(0, 14)).all(), "it trains on from the same parameters"
        await node.adopt(anchor(1), listed=listed)
        # flat += new anchor - start: only the steps after the offer are left on the new anchor.
        assert (trainer.flat == anchor(1) - steps(10, 14)).all()
        assert (trainer.start == anchor(1)).all()
        assert trainer.position == 100 + 4
        assert trainer.lane == node.store.tip.lane(node.store.me)
        assert ledger.drawn == 0
        trainer.step(3)
        # S and W: nothing, or half of the ten steps with their weight.
        waiting = 0 if listed else 5
        assert (node.dropped, ledger.weight) == (0, 0) if listed else (5, 5)
        assert (ledger.residue == steps(0, 10) * 10 * (0.0 if listed else 0.5)).all()
        await node.offer()
        assert (ledger.offer.weight, ledger.drawn) == (waiting + 7, 3)
        q = np.frombuffer(ledger.offer.encoded, "<f4")
        expected = (steps(0, 10) * 10 * (0.0 if listed else 0.5) + 7 * steps(10, 17)) / (
            waiting + 7
        )
        assert np.allclose(q, expected, rtol=1e-6)
        trainer.step(2)
        await node.adopt(anchor(2), listed=True)
        assert (trainer.flat == anchor(2) - steps(17, 19)).all()
        assert ledger.pending == 0
        assert np.abs(ledger.residue).max() < 1e-5

    run_virtual(story)


def test_overlap_keeps_steps_that_were_handed_over_after_the_offer() -> None:
    """The exchange fails and the node trains on alone: these steps begin the next trajectory."""

    async def story() -> None:
        node = LinkedNode()
        ledger, trainer = node.store.ledger, node.trainer
        await node.link.begin()
        trainer.step(6)
        await node.offer()
        offer = ledger.offer
        trainer.step(4)
        await node.link.resume()
        assert (ledger.samples, ledger.later_samples, ledger.drawn) == (6, 4, 6)
        assert trainer.lane == node.store.tip.lane(node.store.me).after(6)
        trainer.step(5)
        await node.offer()
        assert ledger.offer is offer, "one offer for each parent"
        assert (ledger.later_samples, ledger.drawn) == (9, 11)
        # The reserve goes on where the first exchange ended.
        assert trainer.lane == node.store.tip.reserve_lane(node.store.me).after(4)
        trainer.step(1)
        await node.adopt(anchor(3), listed=True)
        assert (trainer.flat == anchor(3) - steps(6, 16)).all()
        assert (trainer.start == anchor(3) - steps(6, 15)).all()
        assert trainer.position == 100 + 10

    run_virtual(story)


def test_overlap_gives_a_download_the_work_of_the_anchor_that_is_left() -> None:
    """A node that adopts while it trains hands over first: the work waits, and is halved."""

    async def story() -> None:
        node = LinkedNode()
        ledger, trainer = node.store.ledger, node.trainer
        await node.link.begin()
        trainer.step(8)
        await node.adopt(anchor(1), listed=False)
        assert (node.dropped, ledger.weight, ledger.samples) == (4, 4, 0)
        assert (ledger.residue == 4 * steps(0, 8)).all()
        assert (trainer.flat == anchor(1)).all()

    run_virtual(story)


def test_overlap_lets_no_step_at_genesis_follow_a_joiner() -> None:
    async def story() -> None:
        node = LinkedNode()
        trainer = node.trainer
        await node.link.begin()
        trainer.step(5)
        await node.offer(send=False)
        trainer.step(3)
        async with node.link.lock:
            await node.link.end_trajectory(joining=True)
            assert node.store.ledger.pending == 8, "the settlement drops and reports all of it"
            node.store.ledger.drop(9)
            node.store.anchor.value[:] = anchor(4)
            await node.link.begin_trajectory()
        assert (trainer.flat == anchor(4)).all()
        trainer.step(2)
        await node.offer()
        assert node.store.ledger.offer.weight == 2

    run_virtual(story)


def test_run_that_counts_steps_does_not_overlap() -> None:
    assert RoundRules().overlaps
    assert not RoundRules(steps=10).overlaps
    assert not RoundRules(overlap=False).overlaps


OPERATIONS = st.sampled_from(["offer", "send", "resume", "listed", "unlisted", "leave"])
# What dies, and at which of the operation's points; 0 kills nothing.
DEATH = st.tuples(st.sampled_from(["node", "worker", "none"]), st.integers(1, 8))


@settings(max_examples=150, deadline=None)
@given(history=st.lists(st.tuples(OPERATIONS, st.integers(0, 6), DEATH), min_size=1, max_size=14))
def test_overlap_counts_no_step_twice_whatever_dies_where(
    history: list[tuple[str, int, tuple[str, int]]],
) -> None:
    """The trainer makes steps between any two actions of the node, and either may die there."""

    async def story() -> None:
        await Deaths().play(history)

    run_virtual(story)


class Deaths:
    """One node through crashes. Every step is in exactly one place."""

    def __init__(self) -> None:
        self.node = LinkedNode()
        self.number = 0
        # Steps that went with a process.
        self.lost = 0

    async def play(self, history: list[tuple[str, int, tuple[str, int]]]) -> None:
        await self.node.link.begin()
        for operation, count, (victim, point) in history:
            self.node.trainer.step(count)
            await self._operate(operation, victim, point)
            await self._recover()
            self._check()

    async def _operate(self, operation: str, victim: str, point: int) -> None:
        trainer, passed = self.node.trainer, [0]
        with trio.CancelScope() as scope:

            def at_point() -> None:
                passed[0] += 1
                trainer.step()
                if passed[0] == point and victim == "worker":
                    trainer.die()
                elif passed[0] == point and victim == "node":
                    scope.cancel()

            trainer.at_point = at_point
            await self._act(operation)
        trainer.at_point = lambda: None
        if scope.cancelled_caught or operation == "leave":
            await self._restart()

    async def _act(self, operation: str) -> None:
        node, ledger = self.node, self.node.store.ledger
        if operation in {"offer", "send"}:
            await node.offer(send=operation == "send")
        elif operation == "resume":
            await node.link.resume()
        elif operation == "leave":
            await node.link.leave()
            await node.store.ledger_store.save(node.store.tip)
        else:
            await self._adopt(listed=operation == "listed" and ledger.offer_sent)

    async def _adopt(self, *, listed: bool) -> None:
        """Adopt, and make the ledger durable with the certificate."""
        store, before = self.node.store, self.node.store.tip
        self.number += 1
        try:
            await self.node.adopt(anchor(self.number), listed=listed)
        finally:
            if store.tip is not before:
                with trio.CancelScope(shield=True):
                    await store.ledger_store.save(store.tip)

    async def _restart(self) -> None:
        """Kill the process, and begin another one from its disk."""
        old = self.node
        # A view is durable before anything is sent in it.
        sent = old.store.ledger.offer_sent
        new = self.node = LinkedNode(medium=old.medium)
        await new.restore(old.store.tip, old.store.anchor.value, sent=sent)
        new.certified, new.dropped = old.certified, old.dropped
        new.trainer.made = old.trainer.made
        gone = old.store.ledger.pending - new.store.ledger.pending
        assert gone >= 0, "the disk holds more than the memory held"
        self.lost += old.trainer.steps + old.trainer.lost + gone
        # Work that a dying node had received, and that was in no ledger yet.
        missing = old.trainer.made - self._accounted()
        assert missing >= 0, "more steps are accounted for than were made"
        self.lost += missing
        await new.link.begin()

    async def _recover(self) -> None:
        """Let the link's task find a dead trainer."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.node.link.attend)
            await trio.sleep(4.0)
            nursery.cancel_scope.cancel()

    def _accounted(self) -> int:
        node = self.node
        pending = node.store.ledger.pending
        in_worker = node.trainer.steps + node.trainer.lost
        return node.certified + node.dropped + pending + in_worker + self.lost

    def _check(self) -> None:
        store, trainer = self.node.store, self.node.trainer
        local = store.ledger.local
        held = np.zeros(PARAMETERS, np.float32) if local is None else local
        assert trainer.running
        assert (trainer.start == store.anchor.value - held).all()
        moved = store.anchor.value - trainer.flat
        assert set(np.unique(moved)) <= {0.0, 1.0}, "a step is counted twice"
        assert moved.sum() == held.sum() + trainer.steps
        assert self._accounted() == trainer.made
