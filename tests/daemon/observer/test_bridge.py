"""The bridge: when a status is rendered, and what the ETag stands for."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio
import trio.testing

from daemon.observer.bridge import REFRESH_S, Bridge, publish_regularly, render
from daemon.observer.endpoints import ENDPOINTS
from protocol.status import Status, fold, status_at
from tests.story import AT, certified, day, folded


def bridge_of(clock: Callable[[], float] = time.monotonic) -> Bridge:
    bridge = Bridge(clock)
    bridge.publish(status_at(folded(day()), AT))
    return bridge


def test_snapshot_is_rendered_at_most_once_a_second_and_only_for_a_new_status() -> None:
    now = 0.0
    bridge = bridge_of(clock=lambda: now)
    state = folded(day())
    first = bridge.snapshot()
    assert bridge.snapshot() is first
    fold(state, certified(7, at=AT))
    bridge.publish(status_at(state, AT))
    assert bridge.snapshot() is first
    now = REFRESH_S
    second = bridge.snapshot()
    assert second.source.run.number == 7
    assert second.etag != first.etag
    now = 100.0
    assert bridge.snapshot() is second


def test_etag_ignores_the_time() -> None:
    state = folded(day())
    assert render(status_at(state, AT)).etag == render(status_at(state, AT + 1)).etag
    first, second = (render(status_at(state, at)).body(ENDPOINTS[1]) for at in (AT, AT + 1))
    assert first != second


async def test_publish_regularly_publishes_each_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bridge, published = Bridge(), []

    def source() -> Status:
        published.append(trio.current_time())
        return status_at(folded(day()), AT)

    with trio.move_on_after(3.5):
        await publish_regularly(bridge, source)
    assert len(published) == 4
    assert bridge.snapshot().source.run.number == 6
