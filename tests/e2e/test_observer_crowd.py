"""A thousand keys that beacon over forty connections do not fill the memory of an observer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simulator.harness.netns import missing_for_namespaces
from tests.daemon.observer.test_api_garbage import resident_bytes
from tests.e2e.processes import until

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing_for_namespaces()), reason=missing_for_namespaces()),
]
CONNECTIONS, KEYS = 40, 25
# The figure of the issue: an observer runs beside other services on a small machine.
MAX_RESIDENT_BYTES = 200_000_000
START_S, HEAR_S = 120.0, 240.0
# After all keys are known: long enough for caches of two minutes to fill.
WATCH_S = 130.0
# Every connection has an address of its own, in a /24 of its own, on the namespace's loopback.
HOSTS = [f"45.67.{i}.1" for i in range(1, CONNECTIONS + 1)]
ROOT = Path(__file__).parents[2]


@contextmanager
def crowd(folder: Path) -> Iterator[tuple[int, list[str]]]:
    """Run the crowd in a network namespace. Yields the process that holds it, and addresses."""
    setup = " && ".join(["ip link set lo up", *(f"ip addr add {h}/32 dev lo" for h in HOSTS)])
    command = f"{setup} && exec {sys.executable} -m tests.e2e.crowd {','.join(HOSTS)} {KEYS}"
    with (folder / "crowd.log").open("w") as log:
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        try:
            addresses = process.stdout.readline().split()
            assert len(addresses) == CONNECTIONS, (folder / "crowd.log").read_text()[-2000:]
            yield process.pid, addresses
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


class CrowdedObserver:
    """`hypergpud observe` in the namespace of the crowd."""

    def __init__(self, folder: Path, holder: int, addresses: list[str]) -> None:
        self._inside = ["nsenter", f"--net=/proc/{holder}/ns/net", "--"]
        self._log = folder / "observer.log"
        joins = [word for address in addresses for word in ("--join", address)]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *self._inside,
                    sys.executable,
                    "-m",
                    "daemon.cli.entry",
                    "--home",
                    str(folder / "home"),
                    "observe",
                    "--port",
                    "0",
                    *joins,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    @property
    def page(self) -> str:
        """The address of its page; empty before it is ready."""
        found = re.findall(r"Ready: the page is at (http\S+)", self.log())
        return str(found[0]) if found else ""

    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str) -> bytes:
        """Read from its page, inside the namespace."""
        script = (
            "import sys, urllib.request as r;"
            "sys.stdout.buffer.write(r.urlopen(sys.argv[1], timeout=20).read())"
        )
        command = [*self._inside, sys.executable, "-c", script, self.page + path]
        return subprocess.run(command, capture_output=True, timeout=60, check=True).stdout

    def known(self) -> tuple[int, int]:
        """Return how many peers it knows, and how many connections it has."""
        status = json.loads(self.get("api/v1/status"))
        return len(status["peers"]), int(status["network"]["connections"])


def test_observer_of_a_thousand_keys_stays_below_200_mb(tmp_path: Path) -> None:
    with crowd(tmp_path) as (holder, addresses):
        observer = CrowdedObserver(tmp_path, holder, addresses)
        heard: list[tuple[int, int]] = []
        try:
            until(lambda: observer.page, "the observer serves its page", START_S)
            until(
                lambda: heard.append(observer.known()) or heard[-1][0] >= CONNECTIONS * KEYS,
                "the observer knows every key",
                HEAR_S,
            )
            peak, end = 0, time.monotonic() + WATCH_S
            while time.monotonic() < end:
                for path in ("", "metrics", "api/v1/peers?limit=500"):
                    assert observer.get(path)
                peak = max(peak, resident_bytes(observer.process.pid))
                time.sleep(2.0)
            peers, connections = observer.known()
            print(f"{peers} peers over {connections} connections: at most {peak:,} bytes resident")
            assert connections >= CONNECTIONS
            assert peak < MAX_RESIDENT_BYTES
            assert "Traceback" not in observer.log()
        finally:
            observer.process.terminate()
            try:
                observer.process.wait(20)
            except subprocess.TimeoutExpired:
                observer.process.kill()
                observer.process.wait()
            print(observer.log()[-1500:], f"peers and connections: {heard[-5:]}", sep="\n")
