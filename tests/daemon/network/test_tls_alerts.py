"""What a TLS session does with a peer that breaks RFC 8446, and what it tells that peer."""

from __future__ import annotations

import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

from daemon.network.tls.certificate import BulkCertificate, load_or_make
from daemon.network.tls.handshake import HandshakeFailed, TlsContext
from daemon.network.tls.records import (
    CIPHER_SUITES,
    HEADER_BYTES,
    RECORD_BYTES,
    RecordBuffer,
    RecordError,
    RecordOpener,
    RecordSealer,
)
from daemon.network.tls.session import TlsSession
from protocol.errors import Unreachable

AES_256 = CIPHER_SUITES["TLS_AES_256_GCM_SHA384"]
SECRET = bytes(range(48))
PATIENCE_S = 30.0
DATA, HANDSHAKE, ALERT = b"\x17", b"\x16", b"\x15"
TICKET = b"\x04\x00\x01\x00" + bytes(256)


def sealed(number: int, inner: bytes) -> bytes:
    """Record `number` under `SECRET`, whose inner plaintext is content, kind and padding."""
    iv = int.from_bytes(AES_256.expand(SECRET, "iv", 12), "big")
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    aead = AESGCM(AES_256.expand(SECRET, "key", 32))
    return header + aead.encrypt((iv ^ number).to_bytes(12, "big"), inner, header)


def alert_for(wire: bytes, *, limit: int = RECORD_BYTES, from_server: bool = True) -> int | None:
    """The alert with which a session answers `wire`."""
    opening = RecordOpener(AES_256, SECRET, limit=limit, from_server=from_server)
    buffer, have = RecordBuffer(len(wire) // RECORD_BYTES + 2), len(wire)
    buffer.memory[:have] = wire
    try:
        while have:
            used, size = opening.open(buffer, have, memoryview(bytearray(1 << 17)))
            assert used or size, "the session waits for more"
            buffer.memory[: have - used] = bytes(buffer.memory[used:have])
            have -= used
    except RecordError as refused:
        return refused.alert
    raise AssertionError("the session took it all")


@pytest.mark.parametrize(
    ("wire", "alert"),
    [
        (b"\x16\x03\x03\x00\x20" + bytes(32), 10),
        (b"\x15\x03\x03\x00\x02\x02\x28", 10),
        (b"\x17\x03\x03\x41\x01", 22),
        (b"\x17\x03\x03\x00\x10" + bytes(16), 20),
        (sealed(1, b"a" + DATA), 20),
        (sealed(0, bytes(20)), 10),
        (sealed(0, bytes(RECORD_BYTES + 1) + DATA), 22),
        (sealed(0, b"a" + DATA + bytes(RECORD_BYTES)), 22),
        (sealed(0, HANDSHAKE), 10),
        (sealed(0, b"\x01\x14"), 10),
        (sealed(0, b"\x02" + ALERT), 50),
        (sealed(0, b"\x02\x28" + ALERT), None),
        (sealed(0, b"\x18\0\0\1\2" + HANDSHAKE), 47),
        (sealed(0, b"\x18\0\0\2\0\0" + HANDSHAKE), 50),
        (sealed(0, b"\x18\0\0\1\0\4" + HANDSHAKE), 10),
        (sealed(0, b"\x01\0\0\0" + HANDSHAKE), 10),
        (sealed(0, b"\x04\xff\xff\xff" + HANDSHAKE), 47),
        (sealed(0, TICKET[:9] + HANDSHAKE) + sealed(1, b"a" + DATA), 10),
        (sealed(0, TICKET[:3] + HANDSHAKE) + sealed(1, b"\x01\0" + ALERT), 10),
        (sealed(0, TICKET[:9] + HANDSHAKE) + sealed(1, bytes(RECORD_BYTES) + DATA), 10),
        (sealed(0, TICKET[:9] + HANDSHAKE) + sealed(1, DATA), 10),
    ],
)
def test_opening_names_the_alert_for_each_fault(wire: bytes, alert: int | None) -> None:
    assert alert_for(wire) == alert


def test_opening_takes_tickets_from_a_server_only() -> None:
    assert alert_for(sealed(0, TICKET + HANDSHAKE), from_server=False) == 10


def test_opening_counts_padding_up_to_the_bound() -> None:
    wire = sealed(0, b"a" + DATA + bytes(RECORD_BYTES - 1))
    buffer, target = RecordBuffer(2), memoryview(bytearray(1 << 15))
    buffer.memory[: len(wire)] = wire
    assert RecordOpener(AES_256, SECRET).open(buffer, len(wire), target) == (len(wire), 1)


@pytest.mark.parametrize("limit", [512, 1024, 2048, 4096])
def test_records_obey_a_negotiated_limit(limit: int) -> None:
    content = bytes(3 * limit + 7)
    wire = b"".join(
        RecordSealer(AES_256, SECRET, limit=limit).data(memoryview(content), RecordBuffer(1))
    )
    sizes = []
    while wire:
        (size,) = struct.unpack_from(">H", wire, 3)
        sizes.append(size - 17)
        wire = wire[HEADER_BYTES + size :]
    assert sizes == [limit, limit, limit, 7]
    assert alert_for(sealed(0, bytes(limit + 1) + DATA), limit=limit) == 22
    full = RecordSealer(AES_256, SECRET).data(memoryview(bytes(RECORD_BYTES)), RecordBuffer(1))
    assert alert_for(b"".join(full), limit=limit) == 22


# ------------------------------------------------------------------ real peers, over real sockets


@pytest.fixture
def certificate(tmp_path: Path) -> BulkCertificate:
    return load_or_make(tmp_path / "bulk.pem", "alerts")


class Peer:
    """A client made with OpenSSL that keeps its keys, so that it can send what it likes."""

    def __init__(
        self, sock: socket.socket, certificate: BulkCertificate, suites: bytes = b""
    ) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.use_certificate_file(str(certificate.path))
        context.use_privatekey_file(str(certificate.path))
        if suites:
            context.set_tls13_ciphersuites(suites)
        self.secrets: dict[bytes, bytes] = {}
        context.set_keylog_callback(self._keep)
        self.tls = SSL.Connection(context, sock)
        self.tls.set_connect_state()
        self.sock = sock

    def _keep(self, _: SSL.Connection, line: bytes) -> None:
        label, _random, secret = line.split()
        self.secrets[label] = bytes.fromhex(secret.decode())

    def send_record(self, number: int, inner: bytes, flip: int = 0) -> None:
        suite = CIPHER_SUITES[self.tls.get_cipher_name() or ""]
        secret = self.secrets[b"CLIENT_TRAFFIC_SECRET_0"]
        iv = int.from_bytes(suite.expand(secret, "iv", 12), "big")
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        aead = AESGCM(suite.expand(secret, "key", suite.key_bytes))
        body = bytearray(aead.encrypt((iv ^ number).to_bytes(12, "big"), inner, header))
        body[0] ^= flip
        self.sock.sendall(header + bytes(body))

    def alert(self) -> str:
        """The reason with which the other side gives up."""
        with pytest.raises(SSL.Error) as refused:
            self.tls.recv(1)
        return str(refused.value.args[0][0][2])


@asynccontextmanager
async def serving(certificate: BulkCertificate) -> AsyncIterator[tuple[TlsSession, socket.socket]]:
    """A session of ours that waits for a handshake, and the other end of its connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname(), PATIENCE_S) as theirs:
        ours, _ = listener.accept()
        ours.setblocking(False)
        transport = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        context = TlsContext(certificate.path, server_side=True)
        theirs.settimeout(None)  # OpenSSL reads the socket itself
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 30, 0))
        with trio.fail_after(PATIENCE_S):
            session = TlsSession(transport, context, certificate.der.__eq__)
            yield session, theirs
            await session.aclose()


async def shake_hands(session: TlsSession, peer: Peer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, peer.tls.do_handshake)
        await session.handshake()


@pytest.mark.parametrize(
    ("inner", "flip", "reason"),
    [
        (b"a" + DATA, 1, "alert bad record mac"),
        (bytes(RECORD_BYTES + 1) + DATA, 0, "alert record overflow"),
        (bytes(9), 0, "alert unexpected message"),
        (b"\x18\0\0\1\7" + HANDSHAKE, 0, "alert illegal parameter"),
    ],
)
async def test_session_sends_an_alert_before_it_closes(
    certificate: BulkCertificate, inner: bytes, flip: int, reason: str
) -> None:
    """Unread bytes behind the fault must not destroy the alert on its way."""
    async with serving(certificate) as (session, theirs):
        peer = Peer(theirs, certificate)
        await shake_hands(session, peer)
        peer.send_record(0, inner, flip)
        theirs.sendall(bytes(100_000))
        with pytest.raises(Unreachable, match="TLS: "):
            await session.receive_some(10)
        assert session.refused
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.linger)
            assert reason in await trio.to_thread.run_sync(peer.alert)
            theirs.shutdown(socket.SHUT_RDWR)


async def test_session_tells_a_stranger_before_it_closes(certificate: BulkCertificate) -> None:
    async with serving(certificate) as (session, theirs):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        def call() -> None:
            with context.wrap_socket(theirs.dup()) as tls:
                tls.sendall(bytes(50_000))
                with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
                    tls.recv(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, call)
            with pytest.raises(HandshakeFailed, match="did not return a certificate") as failed:
                await session.handshake()
            assert failed.value.stranger
            await session.linger()


async def test_session_refuses_what_is_no_tls(certificate: BulkCertificate) -> None:
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(99), bytes(64)):
        async with serving(certificate) as (session, theirs):
            theirs.sendall(noise)
            with pytest.raises(HandshakeFailed) as failed:
                await session.handshake()
            assert not failed.value.stranger
            assert theirs.recv(5)[:1] == ALERT


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        (b"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        (b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
    ],
)
async def test_session_agrees_on_a_suite_that_it_can_use(
    certificate: BulkCertificate, offered: bytes, agreed: str
) -> None:
    async with serving(certificate) as (session, theirs):
        peer = Peer(theirs, certificate, offered)
        await shake_hands(session, peer)
        assert peer.tls.get_cipher_name() == agreed
        await session.send_all(b"under the right numbers")  # tickets took the first ones
        assert await trio.to_thread.run_sync(peer.tls.recv, 100) == b"under the right numbers"


async def test_session_refuses_a_peer_that_offers_chacha20_alone(
    certificate: BulkCertificate,
) -> None:
    async with serving(certificate) as (session, theirs):
        peer = Peer(theirs, certificate, b"TLS_CHACHA20_POLY1305_SHA256")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, peer_is_refused, peer)
            with pytest.raises(HandshakeFailed, match="no shared cipher"):
                await session.handshake()
            await session.linger()


def peer_is_refused(peer: Peer) -> None:
    with pytest.raises(SSL.Error, match="handshake failure"):
        peer.tls.do_handshake()
    peer.sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
async def test_session_obeys_a_fragment_length_that_openssl_negotiated(
    certificate: BulkCertificate,
) -> None:
    """A client that negotiated 512 bytes refuses longer records, so all bytes must arrive."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    pem, port = str(certificate.path), listener.socket.getsockname()[1]
    words = f"openssl s_client -connect 127.0.0.1:{port} -cert {pem} -key {pem} -quiet -tls1_3"
    command = [*words.split(), "-maxfraglen", "512"]
    content = bytes(range(256)) * 200
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery, listener:
            client: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
            )
            assert client.stdin is not None
            assert client.stdout is not None
            context = TlsContext(certificate.path, server_side=True)
            session = TlsSession(await listener.accept(), context, certificate.der.__eq__)
            await session.handshake()
            await client.stdin.send_all(content)
            came = b""
            while len(came) < len(content):
                came += await session.receive_some(100_000)
            await session.send_all(came)
            back = b""
            while len(back) < len(content):
                back += await client.stdout.receive_some(100_000)
            assert back == content
            await session.aclose()
            client.terminate()
