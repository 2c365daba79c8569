"""Strangers and members that abuse a node's ports and its relay: real connections, and many."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.traversal.messages import (
    TRAVERSAL_PROTOCOL,
    Introduce,
    Introduced,
    OuterAddress,
    request_over,
)
from daemon.network.traversal.preamble import PreambleKind, encode_preamble
from daemon.network.traversal.relay_limits import MAX_HALF_OPEN
from protocol.errors import Unreachable
from protocol.ports.endpoint import Endpoint
from tests.daemon.network.nodes import make_node, until_linked
from tests.daemon.network.traversal.lab_node_main import BULK
from tests.daemon.network.traversal.lab_nodes import HERE, LabNode, lab_nodes

# 10 s of CPU each, and up to a minute until the last half-open request is over.
pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.slow]

LIMIT_S = 170.0
# Each member may send 128 requests at once.
ATTACKERS, HALF_OPEN = 8, 1000
# The figure of the issue.
GROWTH_BYTES = 50_000_000
# A relayed session that stays half open ends after 8 s.
OVER_S = 20.0
CONNECTIONS = 100
# Handshakes that went silent end within 10 s, and a lost peer is called again for a while.
QUIET_S, SETTLED_S = 6.0, 60.0
# What the allocator keeps of a hundred connections, after as many before.
KEPT_BYTES = 8_000_000


def state(node: LabNode) -> Counter[str]:
    said = node.ask("state")
    return Counter({name: said[name] for name in ("descriptors", "tasks", "memory_bytes")})


@asynccontextmanager
async def attackers(
    folder: Path, victim: LabNode, count: int
) -> AsyncIterator[list[LibP2PNetwork]]:
    """Connected nodes of other keys. The victim counts those whose endpoint it finds as members."""
    made = [make_node(folder, 100 + index, victim.addresses[0]) for index in range(count)]
    async with trio.open_nursery() as nursery:

        async def run(node: LibP2PNetwork) -> None:
            async with node.running():
                await trio.sleep_forever()

        for node in made:
            nursery.start_soon(run, node)
        for node in made:
            await until_linked(node, 1)
        yield made
        nursery.cancel_scope.cancel()


def publish(folder: Path, nodes: list[LibP2PNetwork]) -> None:
    for node in nodes:
        (folder / f"{node.peer}.endpoint").write_bytes(msgspec.msgpack.encode(node.endpoint))


async def ask(node: LibP2PNetwork, relay: LabNode, wanted: Introduce) -> str:
    """Returns "introduced", or why not."""
    try:
        stream = await node.open_stream(relay.peer, TRAVERSAL_PROTOCOL)
        await request_over(stream, wanted, Introduced)
    except Unreachable as error:
        return str(error)
    return "introduced"


async def test_a_relay_bears_a_thousand_half_open_requests(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT_S), lab_nodes(tmp_path) as nodes:
        relay = nodes.start("relay", HERE, listen_host="127.0.0.1")
        victim = nodes.start("victim", HERE, relay, listen_host="127.0.0.1")
        async with attackers(tmp_path, relay, ATTACKERS) as hostile:
            to_victim = Introduce(to=victim.peer, purpose="bulk")
            refused = await ask(hostile[0], relay, to_victim)
            assert "members and newcomers of its run only" in refused
            publish(tmp_path, hostile)
            while "its run only" in (await ask(hostile[0], relay, to_victim)):
                await trio.sleep(0.2)
            # An address of another peer.
            outer = OuterAddress(host="203.0.113.7", port=4001)
            in_others_name = Introduce(to=victim.peer, purpose="bulk", outer=outer)
            assert await ask(hostile[0], relay, in_others_name) != "introduced"
            assert relay.ask("state")["refusals"]["identity"] == 1

            before, answers = state(relay), Counter[str]()
            async with trio.open_nursery() as nursery:

                async def flood(node: LibP2PNetwork) -> None:
                    for _ in range(HALF_OPEN // ATTACKERS):
                        answers[await ask(node, relay, to_victim)] += 1

                for node in hostile:
                    nursery.start_soon(flood, node)
            said = relay.ask("state")
            most = said["relay"]["sessions"]
            grown = said["memory_bytes"] - before["memory_bytes"]
            print(f"{answers.total()} requests: {answers}; memory grew by {grown / 1e6:.1f} MB")
            assert answers.total() == HALF_OPEN
            assert 0 < most <= MAX_HALF_OPEN
            assert grown < GROWTH_BYTES
            with trio.fail_after(OVER_S):
                while relay.ask("state")["relay"]["sessions"]:
                    await trio.sleep(0.2)
            assert state(relay)["descriptors"] <= before["descriptors"] + ATTACKERS


async def test_a_hundred_connections_dropped_at_random_leave_nothing(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT_S), lab_nodes(tmp_path) as nodes:
        node = nodes.start("node", HERE, listen_host="127.0.0.1")
        drawn = random.Random(18)
        await rounds_of_connections(node, tmp_path, drawn)
        before = await settled(node, None)
        await rounds_of_connections(node, tmp_path, drawn)
        after = await settled(node, before)
    print(f"before {dict(before)}, after {dict(after)}")
    assert after["memory_bytes"] - before["memory_bytes"] < KEPT_BYTES


async def settled(node: LabNode, wanted: Counter[str] | None) -> Counter[str]:
    """The state once it holds no more than `wanted`, or without that, once nothing changes."""
    names, last, since = ("descriptors", "tasks"), Counter[str](), trio.current_time()
    with trio.move_on_after(SETTLED_S):
        while True:
            now = state(node)
            if any(now[name] != last[name] for name in names):
                last, since = now, trio.current_time()
            if wanted is not None and all(now[name] <= wanted[name] for name in names):
                return now
            if wanted is None and trio.current_time() - since > QUIET_S:
                return now
            await trio.sleep(0.5)
    raise AssertionError(f"{last} is left of {wanted}")


async def rounds_of_connections(node: LabNode, folder: Path, drawn: random.Random) -> None:
    """Open a hundred connections of every kind, and drop each after a random time."""
    endpoint = msgspec.msgpack.decode((folder / "node.endpoint").read_bytes(), type=Endpoint)
    control = int(node.addresses[0].split("/")[4])
    async with trio.open_nursery() as nursery:
        for index in range(CONNECTIONS):
            port, lasts_s = drawn.choice((control, endpoint.port)), drawn.uniform(0, 2)
            if index % 10:
                first, reset = drawn.choice(FIRST_BYTES), drawn.random() < 0.3
                nursery.start_soon(raw_connection, port, first, lasts_s, reset)
            else:
                nursery.start_soon(whole_node, folder, node, endpoint, 200 + index, lasts_s)
            await trio.sleep(drawn.uniform(0, 0.03))


TOKEN = bytes(16)
KINDS: tuple[PreambleKind, ...] = ("probe", "observe", "call", "leg")
FIRST_BYTES = (
    b"",
    os.urandom(100),
    encode_preamble("leg", TOKEN)[:12],
    # The beginning of a TLS ClientHello, and of a libp2p negotiation.
    b"\x16\x03\x01\x02\x00\x01",
    b"\x13/multistream/1.0.0\n",
    *(encode_preamble(kind, TOKEN) for kind in KINDS),
)


async def raw_connection(port: int, first: bytes, lasts_s: float, reset: bool) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        if reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.send_all(first)
        await trio.sleep(lasts_s)
    except (OSError, trio.BrokenResourceError):
        # The node may close first.
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def whole_node(
    folder: Path, node: LabNode, endpoint: Endpoint, seed: int, lasts_s: float
) -> None:
    """A node that joins, opens a bulk stream without being admitted, and vanishes."""
    made = make_node(folder, seed, node.addresses[0])
    with trio.move_on_after(4 * lasts_s):
        async with made.running():
            await until_linked(made, 1)
            with trio.move_on_after(lasts_s):
                try:
                    stream = await made.open_bulk(endpoint, BULK)
                    await stream.send_all(bytes(1 << 16))
                except Unreachable:
                    pass
                await trio.sleep_forever()
