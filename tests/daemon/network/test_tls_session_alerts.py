"""What a TLS session tells a peer that breaks RFC 8446, over real sockets."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from functools import partial
from pathlib import Path

import pytest
import trio
from OpenSSL import SSL

from daemon.network.tls.certificate import BulkCertificate, load_or_make
from daemon.network.tls.handshake import HandshakeFailed, TlsContext
from daemon.network.tls.records import RECORD_BYTES
from daemon.network.tls.session import TlsSession
from protocol.errors import Unreachable
from tests.daemon.network.tls_peer import TIMEOUT_S, OpenSSLPeer, complete_handshake, serving

DATA, HANDSHAKE, ALERT = b"\x17", b"\x16", b"\x15"


@pytest.fixture
def certificate(tmp_path: Path) -> BulkCertificate:
    return load_or_make(tmp_path / "bulk.pem", "alerts")


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
        peer = OpenSSLPeer(theirs, certificate)
        await complete_handshake(session, peer)
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


async def test_session_refuses_bytes_that_are_not_tls(certificate: BulkCertificate) -> None:
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
        peer = OpenSSLPeer(theirs, certificate, offered)
        await complete_handshake(session, peer)
        assert peer.tls.get_cipher_name() == agreed
        # The server's tickets used the first record numbers.
        await session.send_all(b"under the right numbers")
        assert await trio.to_thread.run_sync(peer.tls.recv, 100) == b"under the right numbers"


async def test_session_refuses_a_peer_that_offers_chacha20_alone(
    certificate: BulkCertificate,
) -> None:
    async with serving(certificate) as (session, theirs):
        peer = OpenSSLPeer(theirs, certificate, b"TLS_CHACHA20_POLY1305_SHA256")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, peer_is_refused, peer)
            with pytest.raises(HandshakeFailed, match="no shared cipher"):
                await session.handshake()
            await session.linger()


def peer_is_refused(peer: OpenSSLPeer) -> None:
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
    with trio.fail_after(TIMEOUT_S):
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
            received = b""
            while len(received) < len(content):
                received += await session.receive_some(100_000)
            await session.send_all(received)
            back = b""
            while len(back) < len(content):
                back += await client.stdout.receive_some(100_000)
            assert back == content
            await session.aclose()
            client.terminate()
