"""A signal may come between any two bytecodes of the wait for it."""

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

# With a lock in the handler, one of the first 10 to 250 held for ever.
TIMES = 300
SENDER = "import os, sys, time\nfor line in sys.stdin:\n    time.sleep(0.001)\n    os.kill(int(line), 15)\n"


def test_a_signal_in_the_midst_of_waiting_holds_nothing() -> None:
    """The sender is a process of its own: a thread of ours would hold the interpreter's lock and
    never meet us between two bytecodes.
    """
    with subprocess.Popen(
        [sys.executable, "-c", SENDER], stdin=subprocess.PIPE, text=True
    ) as sender:
        assert sender.stdin is not None
        for _ in range(TIMES):
            with until_signalled() as leave:
                sender.stdin.write(f"{os.getpid()}\n")
                sender.stdin.flush()
                while not leave.wait(1e-6):
                    pass
                assert leave.is_set()


def test_it_wakes_who_waits_and_the_second_signal_is_louder() -> None:
    with until_signalled() as leave:
        assert not leave.wait(0.0)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        before = time.monotonic()
        assert leave.wait(30.0)
        assert time.monotonic() - before < 15.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)


def test_wishes_beyond_what_a_pipe_holds_are_one_wish() -> None:
    leave = StopRequest()
    for _ in range(70_000):
        leave.set()
    assert leave.wait(0.0)
    leave.close()


def test_the_handlers_of_before_are_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with until_signalled():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
