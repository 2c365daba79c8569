"""Relayed connections between real nodes: what the relay sees, refuses and limits."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from daemon.network.traversal.messages import (
    TRAVERSAL_PROTOCOL,
    Introduce,
    Introduced,
    request_over,
)
from daemon.network.traversal.relay import CAP_BURST_S, RelayService, RelaySettings
from daemon.network.traversal.relay_limits import HALF_OPEN_OF_PEER
from protocol.errors import Unreachable
from protocol.network.reachability import Way
from protocol.ports.byte_stream import ByteStream
from protocol.ports.endpoint import Endpoint
from tests.ports.network_kit import ECHO, ask, echo

pytestmark = pytest.mark.real

LIMIT_S = 40.0
COLLECT = "/hypergpu/test/collect/1"
KEY = bytes(range(32))
CAP_BPS = 8e6


class Trio:
    """Two nodes that reach each other through a third one alone, as far as bulk bytes go."""

    def __init__(self, home: Path, relay: RelaySettings) -> None:
        self.relay = make(home, 1, relay=relay)
        self._home = home
        # Called with each of the two nodes before it runs.
        self.prepare: Callable[[LibP2PNetwork], None] = lambda _node: None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.relay.running():
            join = self.relay.addresses[-1:]
            self.one, self.two = make(self._home, 2, join), make(self._home, 3, join)
            for node in (self.one, self.two):
                self.prepare(node)
            async with self.one.running(), self.two.running():
                everybody = (self.relay, self.one, self.two)
                for node in everybody:
                    for other in everybody:
                        node.admit(other.endpoint)
                    node.keep(frozenset(other.peer for other in everybody))
                while any(len(node.links()) < 2 for node in everybody):
                    await trio.sleep(0.05)
                for node in (self.one, self.two):
                    only_relayed(node)
                yield

    async def exchange(self, data: bytes) -> bytes:
        stream = await self.one.open_bulk(self.two.endpoint, ECHO)
        try:
            return await ask(stream, data)
        finally:
            await stream.aclose()


def make(
    home: Path, seed: int, join: tuple[str, ...] = (), relay: RelaySettings | None = None
) -> LibP2PNetwork:
    settings = NetworkSettings(
        listen_host="127.0.0.1", join=join, relay=relay or RelaySettings(enabled=False)
    )
    certificate = load_or_make(home / f"bulk-{seed}.pem", f"node {seed}")
    node = LibP2PNetwork(settings, seed.to_bytes(32, "big"), certificate)
    node.serve_bulk(ECHO, echo)
    return node


def only_relayed(node: LibP2PNetwork) -> None:
    """Leave a node no other way, as two routers that change ports would."""

    def ways(_endpoint: Endpoint) -> tuple[Way, ...]:
        return ("relay",)

    node._paths._ways_to = ways


def service_of(node: LibP2PNetwork) -> RelayService:
    parts = node._running.parts
    assert parts is not None
    return parts.traversal.relay


def watched(service: RelayService, look: Callable[[bytes], bytes]) -> None:
    """Let `look` see, and change, each piece that the relay passes on."""
    inner = service._pump

    async def pump(
        source: trio.SocketStream, target: trio.SocketStream, limiters: list[object]
    ) -> None:
        class Target:
            async def send_all(self, data: bytes) -> None:
                await target.send_all(look(bytes(data)))

            async def send_eof(self) -> None:
                await target.send_eof()

        await inner(source, Target(), limiters)  # type: ignore[arg-type]

    service._pump = pump  # type: ignore[method-assign, assignment]


async def send_for_ever(stream: ByteStream, data: bytes) -> None:
    while True:
        await stream.send_all(data)


async def test_a_relay_sees_no_plaintext_and_the_path_is_named(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def look(data: bytes) -> bytes:
        seen.append(data)
        return data

    nodes = Trio(tmp_path, RelaySettings())
    known = os.urandom(1 << 10) * 256
    with trio.fail_after(LIMIT_S):
        async with nodes.running():
            watched(service_of(nodes.relay), look)
            assert await nodes.exchange(known) == known
            assert nodes.one.path_to(nodes.two.peer).kind == "relayed"
            assert nodes.two.path_to(nodes.one.peer).kind == "relayed"
    captured = b"".join(seen)
    assert len(captured) > 2 * len(known)
    assert known[:64] not in captured
    assert nodes.two.endpoint.certificate not in captured


async def test_a_byte_that_a_relay_changes_breaks_the_stream(tmp_path: Path) -> None:
    passed = 0

    def flip(data: bytes) -> bytes:
        nonlocal passed
        passed += len(data)
        return data[:-1] + bytes((data[-1] ^ 1,)) if passed > 100_000 else data

    nodes = Trio(tmp_path, RelaySettings())
    with trio.fail_after(LIMIT_S):
        async with nodes.running():
            watched(service_of(nodes.relay), flip)
            # Both directions of `ask` may break.
            with pytest.raises(ExceptionGroup) as broken:
                await nodes.exchange(bytes(1 << 20))
            assert broken.group_contains(Unreachable)


async def test_nothing_behind_a_byte_that_a_relay_changes_is_received(tmp_path: Path) -> None:
    sent, received, passed = os.urandom(1 << 20), bytearray(), 0
    over = trio.Event()

    def flip(data: bytes) -> bytes:
        nonlocal passed
        passed += len(data)
        return bytes((data[0] ^ 1,)) + data[1:] if passed > 300_000 else data

    async def collect(stream: ByteStream) -> None:
        try:
            while piece := await stream.receive_some(1 << 16):
                received.extend(piece)
        finally:
            over.set()

    nodes = Trio(tmp_path, RelaySettings())
    nodes.prepare = lambda node: node.serve_bulk(COLLECT, collect)
    with trio.fail_after(LIMIT_S):
        async with nodes.running():
            watched(service_of(nodes.relay), flip)
            stream = await nodes.one.open_bulk(nodes.two.endpoint, COLLECT)
            with pytest.raises(Unreachable):
                await send_for_ever(stream, sent)
            await over.wait()
    assert 0 < len(received) < len(sent)
    assert sent.startswith(received)


async def test_a_relay_that_is_switched_off_says_so(tmp_path: Path) -> None:
    nodes = Trio(tmp_path, RelaySettings(enabled=False))
    with trio.fail_after(LIMIT_S):
        async with nodes.running():
            with pytest.raises(Unreachable, match="no connected member relays"):
                await nodes.exchange(b"x")


async def test_peers_of_other_runs_get_nothing_and_half_open_requests_are_bounded(
    tmp_path: Path,
) -> None:
    nodes = Trio(tmp_path, RelaySettings())
    with trio.fail_after(LIMIT_S):
        async with nodes.running():
            service = service_of(nodes.relay)

            async def introduce() -> Introduced:
                stream = await nodes.one.open_stream(nodes.relay.peer, TRAVERSAL_PROTOCOL)
                wanted = Introduce(to=nodes.two.peer, purpose="bulk")
                return await request_over(stream, wanted, Introduced)

            for _ in range(HALF_OPEN_OF_PEER):
                await introduce()
            with pytest.raises(Unreachable, match="wait for one of their ends"):
                await introduce()
            assert service.figures().sessions == HALF_OPEN_OF_PEER
            # One end never comes, so that they all end by themselves.
            while service.figures().sessions:
                await trio.sleep(0.1)
            nodes.relay.keep(frozenset())
            with pytest.raises(Unreachable, match="members and newcomers of its run only"):
                await introduce()


@pytest.mark.alone
async def test_the_cap_of_a_relay_holds_within_a_tenth(tmp_path: Path) -> None:
    nodes = Trio(tmp_path, RelaySettings(cap_bps=CAP_BPS))
    with trio.fail_after(LIMIT_S):
        async with nodes.running():
            stream = await nodes.one.open_bulk(nodes.two.endpoint, ECHO)
            before, began = service_of(nodes.relay).figures().relayed_bytes, trio.current_time()
            # It goes there and back: 4 MB in all at 1 MB/s.
            await ask(stream, bytes(2_000_000))
            seconds = trio.current_time() - began
            moved = service_of(nodes.relay).figures().relayed_bytes - before
            await stream.aclose()
    assert moved * 8 / (seconds + CAP_BURST_S) < 1.1 * CAP_BPS
