"""Strangers at the open ports: whatever they send changes counters and nothing else."""

from __future__ import annotations

import random
import socket
import ssl
from pathlib import Path

import pytest
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.paths.direct_server import MAX_HANDSHAKES
from daemon.network.paths.direct_stream import HANDSHAKE_TIMEOUT_S, MAX_PROTOCOL_BYTES
from daemon.network.tls.certificate import BulkCertificate, load_or_make
from daemon.network.tls.handshake import TlsContext
from daemon.network.tls.session import TlsSession
from protocol.errors import PeerFault, Unreachable
from protocol.ports.endpoint import Endpoint
from tests.daemon.network.nodes import control_port, make_node
from tests.daemon.network.pair import ECHO, Pair

pytestmark = pytest.mark.real

TIMEOUT_S = 60.0


async def answer_of(port: int, data: bytes, *, end: bool = True) -> bytes:
    """Send raw bytes. Returns what comes back until the other side ends."""
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
            # Being cut off is as good an answer.
            pass
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
    with trio.fail_after(TIMEOUT_S):
        async with pair.running():
            for port in (control_port(pair.target), pair.target.endpoint.port):
                before = sum(pair.target.refusals().values())
                for _ in range(3):
                    await answer_of(port, GARBAGE[name])
                while sum(pair.target.refusals().values()) < before + 3:
                    await trio.sleep(0.02)
            counts = {reason: count for reason, count in pair.target.refusals().items() if count}
            assert set(counts) <= {"handshake", "tls", "oversized", "malformed"}, counts
            await pair.check_alive()


async def test_a_flood_of_half_open_connections_is_cut_off(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    flood = MAX_HANDSHAKES + 40
    with trio.fail_after(TIMEOUT_S):
        async with pair.running():
            for port in (control_port(pair.target), pair.target.endpoint.port):
                before = pair.target.refusals()["busy"]
                streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(flood)]
                await pair.until_refused("busy", before + 40)
                for stream in streams:
                    await stream.aclose()
            await pair.check_alive()


async def test_a_peer_that_falls_silent_in_the_handshake_is_dropped(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with trio.fail_after(TIMEOUT_S):
        async with pair.running():
            started = trio.current_time()
            await answer_of(pair.target.endpoint.port, b"", end=False)
            await pair.until_refused("timeout")
            assert trio.current_time() - started < 3 * HANDSHAKE_TIMEOUT_S
            await pair.check_alive()


async def bulk_session(certificate: BulkCertificate, target: LibP2PNetwork) -> TlsSession:
    transport = await trio.open_tcp_stream("127.0.0.1", target.endpoint.port)
    context = TlsContext(certificate.path, server_side=False)
    session = TlsSession(transport, context, target.endpoint.certificate.__eq__)
    await session.handshake()
    return session


def call_without_certificate(target: LibP2PNetwork) -> bytes:
    """Connect without a certificate. Returns what the client reads before the end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=target.endpoint.certificate)
    address = ("127.0.0.1", target.endpoint.port)
    with (
        socket.create_connection(address, TIMEOUT_S) as sock,
        context.wrap_socket(sock) as tls,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
    ):
        return tls.recv(1)
    return b""


async def refused(session: TlsSession, first_frame: bytes) -> bytes:
    """Send a first frame. Returns what the server answers before it closes."""
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
    with trio.fail_after(TIMEOUT_S):
        async with pair.running():
            pair.target.admit(pair.other.endpoint)
            own = load_or_make(tmp_path / "bulk-2.pem", "node 2")
            assert await trio.to_thread.run_sync(call_without_certificate, pair.target) == b""
            await pair.until_refused("tls", 1)
            assert (
                await refused(await bulk_session(stranger, pair.target), bytes((len(name),)) + name)
                == b""
            )
            await pair.until_refused("tls", 2)
            assert (
                await refused(
                    await bulk_session(own, pair.target),
                    bytes((MAX_PROTOCOL_BYTES + 1,)) + bytes(200),
                )
                == b""
            )
            await pair.until_refused("oversized")
            assert await refused(await bulk_session(own, pair.target), b"\x07unknown") == b"\x01"
            await pair.until_refused("unknown_kind")
            await pair.check_alive()


async def test_bytes_that_are_not_a_certificate_are_not_admitted(tmp_path: Path) -> None:
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
