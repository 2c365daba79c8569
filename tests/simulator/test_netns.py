"""Network namespaces are separate machines on shaped cables, and nothing of them is left over."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulator.harness.netns import missing_for_namespaces, namespaces
from tests.simulator.far_links import RECEIVE, SEND

REPOSITORY = Path(__file__).parents[2]
REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 1)
except ConnectionRefusedError:
    print("there")
except OSError:
    print("gone")
"""
MAKE = """
import time
from simulator.harness.netns import namespaces
with namespaces(2) as made:
    print(made.prefix(0)[1], flush=True)
    time.sleep(60)
"""

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.skipif(bool(missing_for_namespaces()), reason=missing_for_namespaces() or "-"),
]


def interfaces() -> str:
    """All interfaces that are visible outside the namespaces."""
    return subprocess.run(
        ["ip", "-brief", "link"], capture_output=True, text=True, check=True
    ).stdout


def test_a_cable_carries_its_bandwidth() -> None:
    with namespaces(2) as made:
        made.shape(0, uplink_bps=20e6, downlink_bps=None)
        taker = subprocess.Popen(
            [*made.prefix(1), sys.executable, "-c", RECEIVE], stdout=subprocess.PIPE
        )
        assert taker.stdout is not None
        assert taker.stdout.readline() == b"up\n"
        seconds = float(made.run(0, sys.executable, "-c", SEND, made.host(1), "2500000"))
        assert taker.wait(10) == 0
        taker.stdout.close()
    assert 0.8 <= seconds < 3.0, "2.5 MB at 20 Mbit/s take a second"


def test_a_pulled_cable_carries_nothing_until_it_is_back() -> None:
    with namespaces(3) as made:
        look = (sys.executable, "-c", REACH, made.host(1))
        assert made.run(0, *look) == "there\n"
        made.cut(1)
        assert made.run(0, *look) == "gone\n"
        assert made.run(0, sys.executable, "-c", REACH, made.host(2)) == "there\n", (
            "other cables are unchanged"
        )
        made.mend(1)
        # The bridge listens and learns for up to 30 s on some kernels.
        deadline = time.monotonic() + 45
        while made.run(0, *look) != "there\n":
            assert time.monotonic() < deadline


def test_nothing_is_left() -> None:
    before = interfaces()
    with namespaces(2) as made:
        pids = [int(re.findall(r"/proc/(\d+)/", made.prefix(member)[1])[0]) for member in range(2)]
        assert interfaces() == before, "nothing outside changes"
    assert interfaces() == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_killed_maker_leaves_no_namespace() -> None:
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKE], stdout=subprocess.PIPE, env=environ, text=True
    )
    assert maker.stdout is not None
    holder = Path(re.findall(r"(/proc/\d+)/", maker.stdout.readline())[0])
    assert holder.exists()
    maker.send_signal(signal.SIGKILL)
    maker.wait(10)
    maker.stdout.close()
    deadline = time.monotonic() + 10
    while holder.exists():
        assert time.monotonic() < deadline, "the namespace outlived its maker"
        time.sleep(0.05)
