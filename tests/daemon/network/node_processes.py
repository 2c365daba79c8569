"""Starts and talks to processes of `node_process_main.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

SCRIPT = Path(__file__).with_name("node_process_main.py")
ROOT = SCRIPT.parents[3]


class NodeProcess:
    """A running process. `ask` sends a command and waits for its answer."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.peer = ""
        self.address = ""
        self._buffered = b""
        self._turn = trio.Lock()

    async def say(self, command: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(command.encode() + b"\n")

    async def answer(self) -> Any:
        assert self.process.stdout is not None
        while b"\n" not in self._buffered:
            received = await self.process.stdout.receive_some(65_536)
            assert received, "the node ended"
            self._buffered += received
        line, _, self._buffered = self._buffered.partition(b"\n")
        return json.loads(line)

    async def ask(self, command: str) -> Any:
        async with self._turn:
            await self.say(command)
            return await self.answer()

    async def begin(self) -> None:
        hello = await self.answer()
        self.peer, self.address = hello["peer"], hello["address"]


@asynccontextmanager
async def node_processes() -> AsyncIterator[Any]:
    """Give a function that starts a process. All processes are killed at the end."""
    started: list[NodeProcess] = []

    async def start(home: Path, seed: int, *join: str) -> NodeProcess:
        process = await trio.lowlevel.open_process(
            [sys.executable, str(SCRIPT), str(home), str(seed), *join],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        node = NodeProcess(process)
        started.append(node)
        return node

    try:
        yield start
    finally:
        for node in started:
            node.process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            for node in started:
                await node.process.wait()
