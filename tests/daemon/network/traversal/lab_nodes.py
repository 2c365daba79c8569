"""Starts and talks to processes of `lab_node_main.py`, each on a machine of a `RouterLab`."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulator.harness.router_lab import Place

MAIN = Path(__file__).with_name("lab_node_main.py")
ROOT = MAIN.parents[4]
# A node imports its libraries in 2 s, on a busy machine in 20 s.
ANSWER_S = 60.0
POLL_S = 0.2
# This machine, where a test needs no routers.
HERE = Place("127.0.0.1", ())
# What a process gets to end by itself.
END_S = 10.0


class LabNode:
    """A running node."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name, self.process = name, process
        self.peer = ""
        self.addresses: list[str] = []
        self._buffered = b""

    def begin(self) -> None:
        """Wait until the node listens."""
        said = self._line()
        self.peer, self.addresses = said["peer"], said["addresses"]

    def ask(self, do: str, **given: object) -> dict[str, Any]:
        self.tell(do, **given)
        return self.answer()

    def tell(self, do: str, **given: object) -> None:
        """Send a command whose answer the caller reads with `answer`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **given}).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        return self._line()

    def send(self, to: LabNode, size: int, data: bytes) -> dict[str, Any]:
        """Send `size` bytes over a new bulk stream, `data` again and again."""
        return self.ask("send", to=to.peer, size=size, data=data.hex())

    def until(self, is_so: Callable[[dict[str, Any]], object], limit_s: float) -> float:
        """Wait for a state of which `is_so` holds. Returns the seconds that it took."""
        began = time.monotonic()
        while not is_so(said := self.ask("state")):
            assert time.monotonic() - began < limit_s, f"{self.name} within {limit_s} s: {said}"
            time.sleep(POLL_S)
        return time.monotonic() - began

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        end = time.monotonic() + ANSWER_S
        while b"\n" not in self._buffered:
            left = end - time.monotonic()
            ready = select.select([self.process.stdout], [], [], max(left, 0.0))[0]
            assert ready, f"{self.name} does not answer"
            received = os.read(self.process.stdout.fileno(), 1 << 16)
            assert received, f"{self.name} ended"
            self._buffered += received
        line, _, self._buffered = self._buffered.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


class LabNodes:
    """The nodes of one test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[LabNode] = []

    def start(self, name: str, place: Place, *join: LabNode, **settings: object) -> LabNode:
        """Start a node on a machine. It listens when this returns."""
        entries = [
            address
            for one in join
            for address in one.addresses
            if place == HERE or "/127." not in address
        ]
        given = {"listen_host": "0.0.0.0", "join": entries, **settings}
        command = [sys.executable, str(MAIN), str(self._folder), name, json.dumps(given)]
        process = subprocess.Popen(
            [*place.prefix, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            bufsize=0,
        )
        node = LabNode(name, process)
        self._started.append(node)
        node.begin()
        return node

    def close(self) -> None:
        for node in self._started:
            node.process.kill()
            node.process.wait(END_S)
            for pipe in (node.process.stdin, node.process.stdout):
                if pipe is not None:
                    pipe.close()


@contextmanager
def lab_nodes(folder: Path) -> Iterator[LabNodes]:
    """Nodes that end with the block."""
    made = LabNodes(folder)
    try:
        yield made
    finally:
        made.close()
