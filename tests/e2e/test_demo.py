"""`hypergpud demo` with real training: its result, and that no process is left however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import msgspec
import pytest

from daemon.config.settings import PREFIX
from protocol.status import Status
from tests.e2e.processes import Process, descendants, still_running, until
from tests.e2e.swarm import RUN, UP_S

END_TIMEOUT_S = 10.0
INTERRUPTED = 130

pytestmark = [pytest.mark.real, pytest.mark.swarm, pytest.mark.timeout(180)]


class Demo:
    """A running `hypergpud demo`."""

    def __init__(self, root: Path, *arguments: str, bundled: bool) -> None:
        """`bundled`: use the run that comes with HyperGPU instead of a small and fast one."""
        run_file = root / "run.toml"
        run_file.write_text(RUN.format(seconds=2.0), encoding="utf-8")
        chosen = [] if bundled else ["--run", str(run_file)]
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(PREFIX)
        } | {"TMPDIR": str(root)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli.main", "demo", *chosen, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.said: list[str] = []
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def family(self) -> list[Process]:
        """Return all processes that it started: nodes, their workers, the observer."""
        return descendants(self.process.pid)

    def until_said(self, words: str) -> None:
        """Wait for a line with `words`."""

        def look() -> bool:
            assert self.process.poll() is None, self.said
            return any(words in line for line in list(self.said))

        until(look, f"the demo says {words!r}", UP_S)

    def statuses_until_said(self, words: str) -> list[Status]:
        """Return the observer's statuses, polled until a line with `words`."""
        self.until_said("The page of this swarm")
        page = next(
            line.split(": ", 1)[1].strip() for line in self.said if "The page of this swarm" in line
        )
        found: list[Status] = []
        while not any(words in line for line in list(self.said)):
            assert self.process.poll() is None, self.said
            with urlopen(f"{page}api/v1/status", timeout=5) as answer:
                found.append(msgspec.json.decode(answer.read(), type=Status))
            # The observer renders a status at most once a second.
            time.sleep(0.2)
        return found

    def end(self) -> str:
        """Wait for its end. Returns what it printed to stdout."""
        assert self.process.stdout is not None
        result = self.process.stdout.read()
        self.process.wait(60)
        self._listening.join(10)
        return result


@contextmanager
def demo(root: Path, *arguments: str, bundled: bool = False) -> Iterator[Demo]:
    """A demo; the end of the block kills it and all its processes."""
    running = Demo(root, *arguments, bundled=bundled)
    try:
        yield running
    finally:
        left = running.family()
        running.process.kill()
        running.end()
        for one in left:
            if one.running:
                os.kill(one.pid, signal.SIGKILL)


def test_demo_ends_by_itself_with_its_result(tmp_path: Path) -> None:
    with demo(tmp_path, "--peers", "2", "--rounds", "3", "--json", "--no-alone") as running:
        running.until_said("round 1:")
        statuses = running.statuses_until_said("round 3:")
        family = running.family()
        result = running.end()
        assert running.process.returncode == 0, running.said
        verdict = json.loads(result)
        assert list(verdict) == [
            "peers",
            "rounds_certified",
            "agreement",
            "loss_first",
            "loss_last",
            "samples_per_second",
            "bytes_sent",
        ]
        assert verdict["peers"] == 2
        assert verdict["agreement"] is True
        assert verdict["rounds_certified"] >= 3
        assert verdict["loss_last"] < verdict["loss_first"]
        assert min(verdict["samples_per_second"], verdict["bytes_sent"]) > 0
        assert not still_running(family)
        assert not list(tmp_path.glob("hypergpu-demo-*")), "a good demo leaves no files"
        # A regression: the page showed 0 samples/s and no loss half of the time, and refusals of
        # messages of the demo's own nodes.
        trained = [[peer for peer in status.peers if peer.role == "node"] for status in statuses]
        first = next(
            i
            for i, peers in enumerate(trained)
            if len(peers) == 2 and all(peer.samples_per_second for peer in peers)
        )
        assert len(trained) - first >= 5
        assert all(
            peer.samples_per_second > 0 and peer.loss is not None
            for peers in trained[first:]
            for peer in peers
        )
        assert {reason: count for reason, count in statuses[-1].refusals.items() if count} == {}


# tests/daemon/demo interrupts a demo with simulated training.
@pytest.mark.slow
def test_demo_interrupted_before_its_rounds_exits_130_and_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, "--peers", "2", "--rounds", "500", "--json") as running:
        running.until_said("round 1")
        family = running.family()
        running.process.send_signal(signal.SIGINT)
        result = running.end()
        assert running.process.returncode == INTERRUPTED, running.said
        assert json.loads(result)["agreement"] is True
        assert not still_running(family)


def test_kill_9_of_the_demo_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, "--peers", "2") as running:
        running.until_said("The page of this swarm")
        running.until_said("round 1")
        family = running.family()
        assert len(family) == 10, (
            "two nodes and one that trains alone, three workers, each behind its guard, an observer"
        )
        running.process.kill()
        until(
            lambda: not still_running(family),
            "all of the demo's processes have ended",
            END_TIMEOUT_S,
        )
