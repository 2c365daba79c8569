"""A stop request: a signal may arrive between any two bytecodes of the wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from daemon.demo.stop_request import StopRequest, until_signalled

pytestmark = pytest.mark.real

# With a lock in the handler, one of the first 10 to 250 signals caused a deadlock.
TIMES = 300
SENDER = """
import os, sys, time
for line in sys.stdin:
    time.sleep(0.001)
    os.kill(int(line), 15)
"""


def test_signal_during_wait_causes_no_deadlock() -> None:
    """The sender is a process, so that its signals arrive between any two bytecodes.

    A thread would hold the interpreter's lock while it sends.
    """
    with subprocess.Popen(
        [sys.executable, "-c", SENDER], stdin=subprocess.PIPE, text=True
    ) as sender:
        assert sender.stdin is not None
        for _ in range(TIMES):
            with until_signalled() as stop:
                sender.stdin.write(f"{os.getpid()}\n")
                sender.stdin.flush()
                while not stop.wait(1e-6):
                    pass
                assert stop.is_set()


def test_first_signal_wakes_wait_and_second_raises() -> None:
    with until_signalled() as stop:
        assert not stop.wait(0.0)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        before = time.monotonic()
        assert stop.wait(30.0)
        assert time.monotonic() - before < 15.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)


def test_set_with_a_full_pipe_does_not_block() -> None:
    stop = StopRequest()
    for _ in range(70_000):
        stop.set()
    assert stop.wait(0.0)
    stop.close()


def test_until_signalled_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with until_signalled():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
