"""A TLS session of ours with OpenSSL at the other end."""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from daemon.network.tls import record_sealer
from daemon.network.tls.certificate import BulkCertificate, load_or_make
from daemon.network.tls.handshake import TlsContext
from daemon.network.tls.session import TlsSession
from protocol.errors import Unreachable

TIMEOUT_S = 30.0
# Random bytes, so that no two places look alike.
LARGE = random.Random(7).randbytes(3_000_017)


@pytest.fixture
def certificate(tmp_path: Path) -> BulkCertificate:
    return load_or_make(tmp_path / "bulk.pem", "records")


def context_of(certificate: BulkCertificate, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate.path)
    context.load_verify_locations(cadata=certificate.der)
    return context


@contextmanager
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(TIMEOUT_S)
        yield ours, theirs


@asynccontextmanager
async def session_over(
    sock: socket.socket, certificate: BulkCertificate, *, server: bool
) -> AsyncIterator[TlsSession]:
    transport = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    context = TlsContext(certificate.path, server_side=server)
    session = TlsSession(transport, context, certificate.der.__eq__)
    try:
        yield session
    finally:
        await session.aclose()


async def receive_all(session: TlsSession, size: int) -> bytes:
    target = memoryview(bytearray(size))
    at = 0
    while at < size and (got := await session.receive_into(target[at:])):
        at += got
    return bytes(target[:at])


async def keep(where: list[bytes], session: TlsSession, size: int) -> None:
    where.append(await receive_all(session, size))


def echo_with_openssl(
    sock: socket.socket, certificate: BulkCertificate, size: int, *, server: bool
) -> None:
    """OpenSSL's side: send back what arrives, then the end, and read until the other end."""
    with context_of(certificate, server=server).wrap_socket(sock.dup(), server_side=server) as tls:
        data = bytearray()
        while len(data) < size:
            data += tls.recv(1 << 16)
        tls.sendall(data)
        assert tls.recv(1) == b""
        tls.unwrap()


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("key_records", [record_sealer.MAX_KEY_RECORDS, 1])
async def test_session_and_openssl_understand_each_other(
    certificate: BulkCertificate, monkeypatch: pytest.MonkeyPatch, server: bool, key_records: int
) -> None:
    """As a server, OpenSSL also sends tickets. With one record per key, it has to follow ours."""
    monkeypatch.setattr(record_sealer, "MAX_KEY_RECORDS", key_records)
    with trio.fail_after(TIMEOUT_S), socket_pair() as (ours, theirs):
        async with (
            trio.open_nursery() as nursery,
            session_over(ours, certificate, server=server) as session,
        ):
            nursery.start_soon(
                lambda: trio.to_thread.run_sync(
                    lambda: echo_with_openssl(theirs, certificate, len(LARGE), server=not server)
                )
            )
            assert await session.handshake() == certificate.der
            await session.send_all(LARGE)
            assert await receive_all(session, len(LARGE)) == LARGE
            await session.send_eof()
            assert await session.receive_some(1) == b""


@pytest.mark.skipif(
    shutil.which("openssl") is None,
    reason="needs the openssl command, whose client can ask for another key",
)
async def test_session_updates_its_key_when_the_peer_asks(certificate: BulkCertificate) -> None:
    with trio.fail_after(TIMEOUT_S):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        words = [
            "openssl",
            "s_client",
            "-connect",
            f"127.0.0.1:{port}",
            "-tls1_3",
            "-cert",
            str(certificate.path),
            "-key",
            str(certificate.path),
        ]
        async with trio.open_nursery() as nursery, listener:
            client: trio.Process = await nursery.start(
                partial(
                    trio.run_process, words, stdin=subprocess.PIPE, capture_stdout=True, check=False
                )
            )
            sock = (await listener.accept()).socket
            async with session_over(
                socket.socket(fileno=sock.detach()), certificate, server=True
            ) as session:
                await session.handshake()
                assert client.stdin is not None
                assert session._opener is not None
                await client.stdin.send_all(b"before\n")
                assert await receive_all(session, 7) == b"before\n"
                after: list[bytes] = []
                async with trio.open_nursery() as reading:
                    reading.start_soon(keep, after, session, 6)
                    # openssl takes K for a command when it is all that it reads at once.
                    await client.stdin.send_all(b"K\n")
                    while not session._opener.update_asked:
                        await trio.sleep(0.01)
                    await client.stdin.send_all(b"after\n")
                assert after == [b"after\n"]
                await session.send_all(b"under another key\n")
                assert not session._opener.update_asked
                await client.stdin.send_all(b"thanks\n")
                assert await receive_all(session, 7) == b"thanks\n"
                client.terminate()


async def test_a_cut_connection_is_not_an_end(certificate: BulkCertificate) -> None:
    """An attacker who cuts a connection must not be able to fake the end of the stream."""

    def send_and_vanish(sock: socket.socket) -> None:
        with context_of(certificate, server=True).wrap_socket(sock, server_side=True) as tls:
            tls.sendall(b"half of it")
            # This sends no close_notify.
            os.close(tls.detach())

    with trio.fail_after(TIMEOUT_S), socket_pair() as (ours, theirs):
        async with (
            trio.open_nursery() as nursery,
            session_over(ours, certificate, server=False) as session,
        ):
            nursery.start_soon(trio.to_thread.run_sync, send_and_vanish, theirs.dup())
            await session.handshake()
            theirs.close()
            assert await receive_all(session, 10) == b"half of it"
            with pytest.raises(Unreachable, match=r"without a close_notify|connection broken"):
                await session.receive_some(1)
            assert not session.usable
