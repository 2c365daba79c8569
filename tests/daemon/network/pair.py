"""Two connected nodes, to see whether the first one still works after an attack."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from daemon.network.network import LibP2PNetwork
from protocol.ports.byte_stream import ByteStream
from tests.daemon.network.nodes import make_node, until_linked

ECHO = "/hypergpu/test/echo/1"
TOPIC = "hypergpu/test"


async def echo(stream: ByteStream) -> None:
    while piece := await stream.receive_some(65_536):
        await stream.send_all(piece)


class Pair:
    """Two connected nodes. The first one, `target`, is attacked."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.target = make_node(home, 1)
        self.heard = self.target.subscribe(TOPIC, lambda peer, data: True)
        self._serve(self.target)

    def _serve(self, node: LibP2PNetwork) -> None:
        node.serve(ECHO, echo)
        node.serve_bulk(ECHO, echo)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.target.running():
            self.other = make_node(self.home, 2, *self.target.addresses)
            self.other.subscribe(TOPIC, lambda peer, data: True)
            self._serve(self.other)
            async with self.other.running():
                await until_linked(self.target, 1)
                await until_linked(self.other, 1)
                yield

    async def check_alive(self) -> None:
        """Check that both planes and the gossip of the target still work."""
        self.target.admit(self.other.endpoint)
        for stream in (
            await self.other.open_stream(self.target.peer, ECHO),
            await self.other.open_bulk(self.target.endpoint, ECHO),
        ):
            await stream.send_all(b"alive")
            assert await stream.receive_some(5) == b"alive"
            await stream.aclose()
        assert {link.peer for link in self.target.links()} == {self.other.peer}
        await self._meshed()
        said = b"%d" % random.getrandbits(64)
        await self.other.publish(TOPIC, said)
        async for _, data in self.heard:
            if data == said:
                break

    async def _meshed(self) -> None:
        """Wait until the two are in one mesh. What is published before reaches no peer."""
        pubsub = self.other._gossip._pubsub
        assert pubsub is not None
        while not pubsub.router.mesh.get(TOPIC):
            await trio.sleep(0.02)

    async def until_refused(self, reason: str, least: int = 1) -> None:
        """Wait until the target refused `least` times for `reason`."""
        while self.target.refusals()[reason] < least:
            await trio.sleep(0.02)
