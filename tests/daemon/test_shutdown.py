"""A node leaves in order however it is asked to, and a terminal that is closed asks, too."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import trio

from daemon.node.shutdown import ForcedExit, Shutdown, watch_signals
from protocol.errors import UserError


@pytest.fixture
def terminal() -> Iterator[None]:
    """A terminal that may be closed, though these tests were started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "asked to end by SIGTERM"),
        (signal.SIGHUP, "its terminal was closed"),
    ],
)
async def test_the_first_signal_is_a_wish_and_the_second_an_order(
    number: signal.Signals, reason: str
) -> None:
    ending, left = Shutdown(), trio.Event()
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
        ending = Shutdown()
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


STUCK = """
import sys, time, trio
from daemon import ending
from protocol.errors import UserError
ending.STUCK_S = 0.3

async def main():
    end = ending.Ending()
    with trio.CancelScope() as scope, ending.Leave(end, scope.cancel) as leave:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, time.sleep, float(sys.argv[1]))
            await trio.testing.wait_all_tasks_blocked()
            if sys.argv[2] == "lost":
                end.fail(UserError("HOME_LOST", "The home was removed."))
            else:
                end.wish("asked")
            if sys.argv[2] == "ordered":
                end.order()
            leave()
    print("in order")
    sys.exit(7)

import trio.testing
trio.run(main)
"""


@pytest.mark.real
@pytest.mark.parametrize(
    ("busy_s", "how", "code", "said"),
    [
        ("600", "once", 0, "left behind"),
        ("600", "ordered", 130, "left behind"),
        ("600", "lost", 1, "The home was removed."),
        ("0", "once", 7, ""),
    ],
)
def test_a_call_that_nothing_ends_does_not_keep_the_process(
    busy_s: str, how: str, code: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK, busy_s, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert (done.stdout == "in order\n") == (not said)


async def test_leave_ends_nothing_once_its_block_was_left_by_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node that failed while it left: the process reports that, and is not ended from a timer
    with another exit code.
    """
    monkeypatch.setattr("daemon.node.shutdown.FORCED_EXIT_S", 600.0)

    def fail() -> None:
        raise UserError("HOME_LOST", "The home was removed.")

    with pytest.raises(UserError), ForcedExit(Shutdown(), fail) as leave:
        leave()
    for timer in threading.enumerate():
        if isinstance(timer, threading.Timer):
            timer.join(10)
            assert not timer.is_alive()
