"""Strangers attack two real daemons in many ways at once.

Rounds continue, memory does not grow, and a newcomer can join.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_uvarint
from msgspec.structs import replace

from daemon.network.addresses import PeerAddress
from daemon.network.peers.dial_policy import SOURCE_TRIES_AT_ONCE, SOURCE_TRIES_PER_S
from daemon.network.peers.exchange import PEERS_PROTOCOL
from daemon.network.peers.peer_record import encode_exchange, seal_record
from daemon.swarm.chain_sync import PROTOCOL as CHAIN
from daemon.swarm.messenger import PROTOCOL as MESSAGE
from daemon.swarm.state_transfer import PROTOCOL as STATE
from protocol.errors import Unreachable
from protocol.identity import Signer
from protocol.messages.envelope import encode_signed, sign
from protocol.status import Status
from tests.e2e.stranger import Stranger, stranger_at
from tests.e2e.swarm import LOOPBACK, Daemon, Swarm

pytestmark = [pytest.mark.real, pytest.mark.swarm]

ATTACK_S = 8.0
# Rounds that must be certified meanwhile; nine on an idle machine.
ROUNDS = 3
# 20 MB on an idle machine. The limit includes buffers that an allocator keeps.
GROWTH_BYTES = 60 << 20
KEYS = 1000
LONG_HOSTS = tuple(f"{'x' * 200}.{n}.example" for n in range(2000))


def key(number: int) -> bytes:
    return (7000 + number).to_bytes(32, "big")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def now(daemon: Daemon) -> Status:
    return await trio.to_thread.run_sync(daemon.now)


async def gossip(stranger: Stranger, messages: list[tuple[int, bytes]], number: int) -> None:
    """Send one frame of gossip with messages signed by many keys."""
    rpc = rpc_pb2.RPC()
    for place, (one, data) in enumerate(messages):
        keys = Ed25519PrivateKey.from_bytes(key(one))
        message = rpc_pb2.Message(
            from_id=ID.from_pubkey(keys.get_public_key()).to_bytes(),
            data=data,
            seqno=(number + place).to_bytes(8, "big"),
            topicIDs=[stranger.beacons],
        )
        message.signature = keys.sign(b"libp2p-pubsub:" + message.SerializeToString())
        rpc.publish.append(message)
    raw = rpc.SerializeToString()
    stream = await stranger.network.open_stream(stranger.peer, "/meshsub/1.1.0")
    await stream.send_all(encode_uvarint(len(raw)) + raw)


async def beacons(stranger: Stranger) -> None:
    """Send beacons of ever new keys at the target's tip, some with thousands of host names."""
    number = 0
    while True:
        status = await now(stranger.target)
        tip = bytes.fromhex(status.rounds[0].certificate)
        for first in range(0, KEYS, 100):
            said = []
            for one in range(first, first + 100):
                beacon = stranger.beacon(tip=tip, number=status.run.number)
                assert beacon.endpoint is not None
                hosts = LONG_HOSTS if one % 100 == 0 else beacon.endpoint.hosts
                endpoint = replace(beacon.endpoint, peer=Signer(key(one)).peer, hosts=hosts)
                beacon = replace(beacon, serial=time.time_ns(), endpoint=endpoint)
                said.append((one, encode_signed(sign(Signer(key(one)), stranger.run, beacon))))
            await gossip(stranger, said, number)
            number += 100
            await trio.sleep(0.1)


async def connections(stranger: Stranger) -> None:
    """Open silent and half-started connections on both ports."""
    status = await now(stranger.target)
    assert stranger.endpoint is not None
    held: list[trio.SocketStream] = []
    while True:
        for port in (int(status.you.addresses[0].split("/")[4]), stranger.endpoint.port):
            for number in range(60):
                stream = await trio.open_tcp_stream(LOOPBACK, port)
                held.append(stream)
                if number % 3 == 0:
                    await stream.send_all(
                        b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20" + random.randbytes(32)
                    )
        while len(held) > 400:
            await trio.aclose_forcefully(held.pop(0))
        await trio.sleep(0.5)


async def streams(stranger: Stranger) -> None:
    """Open more streams than allowed, half of them full of unread data."""

    async def one(protocol: str, data: bytes) -> None:
        stream = await stranger.network.open_stream(stranger.peer, protocol)
        await stream.send_all(data)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        while True:
            for protocol in (MESSAGE, CHAIN, STATE, PEERS_PROTOCOL, "/hypergpu/kad/1.0.0"):
                for data in (b"", b"\x00\x03\xff\xff" + bytes(100_000)):
                    nursery.start_soon(suppressed, partial(one, protocol, data))
            await trio.sleep(0.5)


async def addresses(stranger: Stranger, port: int) -> None:
    """Send records of invented members that all point at one port of a victim."""
    number = 0
    while True:
        records = []
        for _ in range(30):
            number += 1
            signer = Signer(key(100_000 + number))
            places = [
                PeerAddress("ip4", LOOPBACK, port, signer.peer),
                PeerAddress("dns4", "victim.example", 4001, signer.peer),
            ]
            records.append(seal_record(signer, places, (stranger.run,), 1))
        data = encode_exchange(records)
        stream = await stranger.network.open_stream(stranger.peer, PEERS_PROTOCOL)
        await stream.send_all(len(data).to_bytes(4, "big") + data)
        await stream.send_eof()
        await stream.receive_some(1)
        await stream.aclose()
        await trio.sleep(0.3)


async def suppressed(attack: Callable[[], Awaitable[None]]) -> None:
    """Repeat an attack forever; the stranger expects to be disconnected."""
    while True:
        try:
            await attack()
        except (Unreachable, OSError, trio.BrokenResourceError):
            await trio.sleep(0.5)


async def test_daemons_under_attack_continue_and_admit_a_newcomer(tmp_path: Path) -> None:
    called = 0

    async def count(stream: trio.SocketStream) -> None:
        nonlocal called
        called += 1
        await trio.aclose_forcefully(stream)

    with Swarm(tmp_path) as swarm:
        first = swarm.begin()
        second = await trio.to_thread.run_sync(swarm.join, "second", first)
        await trio.to_thread.run_sync(swarm.until_round, 3, first, second)
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, host=LOOPBACK), count, 0)
            port = listener.socket.getsockname()[1]
            async with stranger_at(first, tmp_path) as stranger, trio.open_nursery() as attacks:
                before = [resident_bytes(daemon.pid) for daemon in (first, second)]
                began, number = time.monotonic(), (await now(first)).run.number
                for attack in (beacons, connections, streams, partial(addresses, port=port)):
                    attacks.start_soon(suppressed, partial(attack, stranger))
                await trio.sleep(ATTACK_S)
                third = await trio.to_thread.run_sync(swarm.join, "third", first)
                await trio.to_thread.run_sync(
                    swarm.until_round, number + ROUNDS, first, second, third
                )
                after = [resident_bytes(daemon.pid) for daemon in (first, second)]
                seconds = time.monotonic() - began
                attacks.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
        assert [late - early < GROWTH_BYTES for early, late in zip(before, after, strict=True)] == [
            True,
            True,
        ], (before, after)
        assert 0 < called <= SOURCE_TRIES_AT_ONCE + SOURCE_TRIES_PER_S * seconds + 1
        await trio.to_thread.run_sync(swarm.stop, first, second, third)
