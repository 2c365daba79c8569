"""Tests `daemon.node.shutdown`: signals, the closed terminal, and the forced exit."""

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
    """Let SIGHUP act on this process, even where nohup started the tests."""
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
async def test_the_first_signal_requests_an_orderly_end_and_the_second_forces_it(
    number: signal.Signals, reason: str
) -> None:
    shutdown, left = Shutdown(), trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, shutdown, left.set)
        signal.raise_signal(number)
        with trio.fail_after(10):
            await shutdown.wait()
        assert shutdown.reason == reason
        assert not left.is_set()
        signal.raise_signal(number)
        with trio.fail_after(10):
            await left.wait()


async def test_sighup_is_ignored_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        shutdown = Shutdown()
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, shutdown, nursery.cancel_scope.cancel)
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)
            with trio.fail_after(10):
                await shutdown.wait()
            assert shutdown.reason == "interrupted"
            nursery.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGHUP, before)


STUCK = """
import sys, time, trio
from daemon.node import shutdown
from protocol.errors import UserError
shutdown.FORCED_EXIT_S = 0.3

async def main():
    end = shutdown.Shutdown()
    with trio.CancelScope() as scope, shutdown.ForcedExit(end, scope.cancel) as leave:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, time.sleep, float(sys.argv[1]))
            await trio.testing.wait_all_tasks_blocked()
            if sys.argv[2] == "lost":
                end.fail(UserError("HOME_LOST", "The home was removed."))
            else:
                end.request("asked")
            if sys.argv[2] == "forced":
                end.force()
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
        ("600", "once", 0, "was abandoned"),
        ("600", "forced", 130, "was abandoned"),
        ("600", "lost", 1, "The home was removed."),
        ("0", "once", 7, ""),
    ],
)
def test_a_call_that_never_returns_does_not_keep_the_process_alive(
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


async def test_the_exit_timer_stops_when_its_block_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The timer must not change the exit code of a node that fails while it leaves."""
    monkeypatch.setattr("daemon.node.shutdown.FORCED_EXIT_S", 600.0)

    def fail() -> None:
        raise UserError("HOME_LOST", "The home was removed.")

    with pytest.raises(UserError), ForcedExit(Shutdown(), fail) as leave:
        leave()
    for timer in threading.enumerate():
        if isinstance(timer, threading.Timer):
            timer.join(10)
            assert not timer.is_alive()
