"""The order in which a node's events are stepped."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from daemon.services.training.native.rounds.event_queue import OVERDUE_S, QUEUE_FULL, EventQueue
from protocol.round import events as e


def gone(name: str) -> e.PeerLost:
    return e.PeerLost(peer=name)


async def test_what_the_node_told_itself_comes_first(autojump_clock: MockClock) -> None:
    inbox = EventQueue()
    for name in "ab":
        inbox.put(gone(name))
    inbox.put(gone("ours"), first=True)
    assert [await inbox.next(math.inf) for _ in range(3)] == [gone("ours"), gone("a"), gone("b")]


async def test_a_deadline_waits_for_the_events_before_it_but_not_for_long(
    autojump_clock: MockClock,
) -> None:
    inbox = EventQueue()
    deadline = trio.current_time() + 10.0
    assert isinstance(await inbox.next(deadline), e.DeadlinePassed)
    assert trio.current_time() == pytest.approx(deadline)
    inbox.put(gone("a"))
    inbox.put(gone("b"))
    assert await inbox.next(deadline) == gone("a")
    await trio.sleep(2 * OVERDUE_S)
    assert isinstance(await inbox.next(deadline), e.DeadlinePassed)
    inbox.put(gone("ours"), first=True)
    assert await inbox.next(deadline) == gone("ours"), (
        "what was told already is acted on before anything"
    )


async def test_whoever_waits_is_woken_by_an_event_and_without_one(
    autojump_clock: MockClock,
) -> None:
    inbox = EventQueue()
    seen: list[e.Event] = []

    async def wait() -> None:
        seen.append(await inbox.next(math.inf))

    for poke, wanted in ((lambda: inbox.put(gone("a")), gone("a")), (inbox.wake, None)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            poke()
        assert seen.pop() == wanted


def test_it_says_what_waits_in_it() -> None:
    inbox = EventQueue()
    assert not inbox.full
    for number in range(QUEUE_FULL + 1):
        inbox.put(gone(str(number)))
    inbox.put(gone("ours"), first=True)
    assert inbox.full
    assert len(inbox) == QUEUE_FULL + 1
    assert gone("7") in inbox
    assert gone("ours") not in inbox
