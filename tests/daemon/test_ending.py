"""A node leaves in order however it is asked to, and a terminal that is closed asks, too."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import trio

from daemon.ending import Ending, watch_signals


@pytest.fixture
def terminal() -> Iterator[None]:
    """A terminal that may be closed, though these tests were started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "asked to end by SIGTERM"), (signal.SIGHUP, "its terminal was closed")],
)
async def test_the_first_signal_is_a_wish_and_the_second_an_order(number: signal.Signals, reason: str) -> None:
    ending, left = Ending(), trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, ending, left.set)
        signal.raise_signal(number)
        with trio.fail_after(10):
            await ending.wait()
        assert ending.reason == reason
        assert not left.is_set()
        signal.raise_signal(number)
        with trio.fail_after(10):
            await left.wait()


async def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ending = Ending()
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, ending, nursery.cancel_scope.cancel)
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)
            with trio.fail_after(10):
                await ending.wait()
            assert ending.reason == "interrupted"
            nursery.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGHUP, before)
