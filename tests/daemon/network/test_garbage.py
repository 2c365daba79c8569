"""Strangers at the open ports: whatever they send changes counters, and nothing else."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError

from daemon.network.libp2p.connection import MAX_BUFFERED_BYTES
from daemon.network.libp2p.control_stream import ControlStream
from daemon.network.network import LibP2PNetwork
from daemon.network.paths.direct import HANDSHAKE_TIMEOUT_S, MAX_HANDSHAKES, MAX_PROTOCOL_BYTES
from daemon.network.tls.certificate import BulkCertificate, load_or_make
from daemon.network.tls.handshake import TlsContext
from daemon.network.tls.session import TlsSession
from protocol.errors import PeerFault, Unreachable
from protocol.ports.byte_stream import ByteStream
from protocol.ports.endpoint import Endpoint
from tests.daemon.network.nodes import control_port, make_node, until_linked

pytestmark = pytest.mark.real

ECHO = "/hypergpu/test/echo/1"
TOPIC = "hypergpu/test"
PATIENCE_S = 60.0


async def echo(stream: ByteStream) -> None:
    while piece := await stream.receive_some(65_536):
        await stream.send_all(piece)


class Pair:
    """Two connected nodes.

    `alive` proves that both planes and the gossip of the first still work.
    """

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

    async def alive(self) -> None:
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
        """A new link's ends first tell each other what they subscribe to, and are meshed after
        that: what is said before reaches nobody.
        """
        pubsub = self.other._gossip._pubsub
        assert pubsub is not None
        while not pubsub.router.mesh.get(TOPIC):
            await trio.sleep(0.02)

    async def counted(self, reason: str, least: int = 1) -> None:
        while self.target.refusals()[reason] < least:
            await trio.sleep(0.02)


async def answer_of(port: int, data: bytes, *, end: bool = True) -> bytes:
    """What comes back for raw bytes, up to the other side's end."""
    received = b""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        try:
            await stream.send_all(data)
            if end:
                await stream.send_eof()
            while piece := await stream.receive_some(65_536):
                received += piece
        except trio.BrokenResourceError:
            pass  # cut off: as good an answer
    return received


NOISE = b"\x13/multistream/1.0.0\n\x07/noise\n"
GARBAGE = {
    "random": random.Random(1).randbytes(4096),
    "zeros": bytes(4096),
    "much": random.Random(2).randbytes(4 << 20),
    "http": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "nothing": b"",
    "half a negotiation": NOISE[:11],
    "unknown security": b"\x13/multistream/1.0.0\n\x0e/plaintext/2.0\n"[:-1] + b"\n",
    "noise, then random": NOISE + b"\x00\x40" + random.Random(3).randbytes(64),
    "noise, then a long message": NOISE + b"\xff\xff" + random.Random(4).randbytes(65_535),
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.Random(5).randbytes(505),
    "endless varint": b"\xff" * 64,
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_raw_bytes_on_either_port_change_counters_only(name: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with trio.fail_after(PATIENCE_S):
        async with pair.running():
            for port in (control_port(pair.target), pair.target.endpoint.port):
                before = sum(pair.target.refusals().values())
                for _ in range(3):
                    await answer_of(port, GARBAGE[name])
                while sum(pair.target.refusals().values()) < before + 3:
                    await trio.sleep(0.02)
            counts = {reason: count for reason, count in pair.target.refusals().items() if count}
            assert set(counts) <= {"handshake", "tls", "oversized", "malformed"}, counts
            await pair.alive()


async def test_a_flood_of_half_open_connections_is_cut_off(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    flood = MAX_HANDSHAKES + 40
    with trio.fail_after(PATIENCE_S):
        async with pair.running():
            for port in (control_port(pair.target), pair.target.endpoint.port):
                before = pair.target.refusals()["busy"]
                streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(flood)]
                await pair.counted("busy", before + 40)
                for stream in streams:
                    await stream.aclose()
            await pair.alive()


async def test_who_goes_silent_in_the_handshake_is_let_go(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with trio.fail_after(PATIENCE_S):
        async with pair.running():
            started = trio.current_time()
            await answer_of(pair.target.endpoint.port, b"", end=False)
            await pair.counted("timeout")
            assert trio.current_time() - started < 3 * HANDSHAKE_TIMEOUT_S
            await pair.alive()


async def bulk_session(certificate: BulkCertificate, target: LibP2PNetwork) -> TlsSession:
    transport = await trio.open_tcp_stream("127.0.0.1", target.endpoint.port)
    context = TlsContext(certificate.path, server_side=False)
    session = TlsSession(transport, context, target.endpoint.certificate.__eq__)
    await session.handshake()
    return session


def call_without_certificate(target: LibP2PNetwork) -> bytes:
    """What a client that shows no certificate reads before the connection ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=target.endpoint.certificate)
    address = ("127.0.0.1", target.endpoint.port)
    with (
        socket.create_connection(address, PATIENCE_S) as sock,
        context.wrap_socket(sock) as tls,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
    ):
        return tls.recv(1)
    return b""


async def refused(session: TlsSession, first_frame: bytes) -> bytes:
    """What the server answers before it closes."""
    answer = b""
    try:
        await session.send_all(first_frame)
        while piece := await session.receive_some(100):
            answer += piece
    except Unreachable:
        pass
    await session.aclose()
    return answer


async def test_bulk_without_the_right_certificate_or_first_frame(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    stranger = load_or_make(tmp_path / "stranger.pem", "stranger")
    name = ECHO.encode()
    with trio.fail_after(PATIENCE_S):
        async with pair.running():
            pair.target.admit(pair.other.endpoint)
            own = load_or_make(tmp_path / "bulk-2.pem", "node 2")
            assert await trio.to_thread.run_sync(call_without_certificate, pair.target) == b""
            await pair.counted("tls", 1)
            assert (
                await refused(await bulk_session(stranger, pair.target), bytes((len(name),)) + name)
                == b""
            )
            await pair.counted("tls", 2)
            assert (
                await refused(
                    await bulk_session(own, pair.target),
                    bytes((MAX_PROTOCOL_BYTES + 1,)) + bytes(200),
                )
                == b""
            )
            await pair.counted("oversized")
            assert await refused(await bulk_session(own, pair.target), b"\x07unknown") == b"\x01"
            await pair.counted("unknown_kind")
            await pair.alive()


async def test_a_certificate_that_is_none_is_not_admitted(tmp_path: Path) -> None:
    node = make_node(tmp_path, 1)
    for nonsense in (b"", b"nonsense", bytes(1000)):
        with pytest.raises(PeerFault):
            node.admit(
                Endpoint(
                    peer=make_node(tmp_path, 2).peer,
                    hosts=("127.0.0.1",),
                    port=1,
                    certificate=nonsense,
                )
            )


LIBP2P = {
    "gossip": "/meshsub/1.1.0",
    "dht": "/hypergpu/kad/1.0.0",
    "peers": "/hypergpu/peers/1",
    "identify": "/ipfs/id/1.0.0",
    "push": "/ipfs/id/push/1.0.0",
    "ping": "/ipfs/ping/1.0.0",
}


@pytest.mark.parametrize("service", LIBP2P)
@pytest.mark.parametrize("data", ["framed", "huge", "random", "frames of nothing"])
async def test_nonsense_from_a_member_on_every_libp2p_service(
    service: str, data: str, tmp_path: Path
) -> None:
    pair = Pair(tmp_path)
    nonsense = {
        "framed": b"\x40" + random.Random(6).randbytes(64),
        "huge": b"\xff\xff\xff\xff\x0f" + bytes(100_000),  # announces 4 GB
        "random": random.Random(7).randbytes(300_000),
        "frames of nothing": bytes(10_000),
    }[data]
    with trio.fail_after(PATIENCE_S):
        async with pair.running():
            stream = await pair.other.open_stream(pair.target.peer, LIBP2P[service])
            try:
                # Some services take it all and wait for more.
                with trio.move_on_after(1):
                    await stream.send_all(nonsense)
                    await stream.send_eof()
                    while await stream.receive_some(65_536):
                        pass
            except Unreachable:
                pass
            await stream.aclose()
            await pair.alive()


async def test_public_ipfs_dht_is_not_spoken(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with trio.fail_after(PATIENCE_S):
        async with pair.running():
            for foreign in ("/ipfs/kad/1.0.0", "/floodsub/1.0.0", "/hypergpu/test/nobody/1"):
                with pytest.raises(Unreachable):
                    await pair.other.open_stream(pair.target.peer, foreign)
            await pair.counted("unknown_kind", 3)
            await pair.alive()


async def test_a_member_that_ignores_its_window_is_cut_off(tmp_path: Path) -> None:
    pair = Pair(tmp_path)

    async def deaf(stream: ByteStream) -> None:
        await trio.sleep_forever()

    pair.target.serve("/hypergpu/test/deaf/1", deaf)
    with trio.fail_after(PATIENCE_S):
        async with pair.running():
            changes = pair.target.changes()
            assert (await anext(changes)).up
            stream = await pair.other.open_stream(pair.target.peer, "/hypergpu/test/deaf/1")
            assert isinstance(stream, ControlStream)
            stream._muxed.send_window = 1 << 30
            with pytest.raises(Unreachable):
                await stream.send_all(bytes(2 * MAX_BUFFERED_BYTES))
            lost = await anext(changes)
            assert not lost.up
            assert "unread" in lost.reason
            assert (await anext(changes)).up  # and it may come back
            await pair.alive()


@pytest.mark.parametrize("seed", range(3))
async def test_nonsense_inside_the_encrypted_connection(seed: int, tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with trio.fail_after(PATIENCE_S):
        async with pair.running():
            (connection,) = pair.other._links.connections()
            for _ in range(4):
                try:
                    await connection.secured_conn.write(random.Random(seed).randbytes(60_000))
                except ConnectionClosedError:
                    break
            changes = pair.target.changes()
            assert (await anext(changes)).up
            assert not (await anext(changes)).up  # at the latest when it no longer answers
            assert (await anext(changes)).up
            await until_linked(pair.other, 1)
            await pair.alive()
