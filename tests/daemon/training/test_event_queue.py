"""Tests the order in which `EventQueue` returns a node's events."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from daemon.services.training.native.rounds.event_queue import OVERDUE_S, QUEUE_FULL, EventQueue
from protocol.round import events as e


def gone(name: str) -> e.PeerLost:
    return e.PeerLost(peer=name)


async def test_the_nodes_own_messages_come_first(autojump_clock: MockClock) -> None:
    queue = EventQueue()
    for name in "ab":
        queue.put(gone(name))
    queue.put(gone("ours"), first=True)
    assert [await queue.next(math.inf) for _ in range(3)] == [gone("ours"), gone("a"), gone("b")]


async def test_a_deadline_waits_for_the_events_before_it_but_not_for_long(
    autojump_clock: MockClock,
) -> None:
    queue = EventQueue()
    deadline = trio.current_time() + 10.0
    assert isinstance(await queue.next(deadline), e.DeadlinePassed)
    assert trio.current_time() == pytest.approx(deadline)
    queue.put(gone("a"))
    queue.put(gone("b"))
    assert await queue.next(deadline) == gone("a")
    await trio.sleep(2 * OVERDUE_S)
    assert isinstance(await queue.next(deadline), e.DeadlinePassed)
    queue.put(gone("ours"), first=True)
    assert await queue.next(deadline) == gone("ours"), (
        "the node's own message comes before any deadline"
    )


async def test_an_event_and_a_wake_both_end_the_wait(
    autojump_clock: MockClock,
) -> None:
    queue = EventQueue()
    seen: list[e.Event] = []

    async def wait() -> None:
        seen.append(await queue.next(math.inf))

    for poke, wanted in ((lambda: queue.put(gone("a")), gone("a")), (queue.wake, None)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            poke()
        assert seen.pop() == wanted


def test_length_and_membership_count_events_but_not_own_messages() -> None:
    queue = EventQueue()
    assert not queue.full
    for number in range(QUEUE_FULL + 1):
        queue.put(gone(str(number)))
    queue.put(gone("ours"), first=True)
    assert queue.full
    assert len(queue) == QUEUE_FULL + 1
    assert gone("7") in queue
    assert gone("ours") not in queue
