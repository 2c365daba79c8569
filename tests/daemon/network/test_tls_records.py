"""The records of a TLS 1.3 session: against the RFC's own example, against OpenSSL at the other
end, and against whoever damages them.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from daemon.network.tls import records
from daemon.network.tls.certificate import BulkCertificate, load_or_make
from daemon.network.tls.handshake import TlsContext
from daemon.network.tls.records import (
    CIPHER_SUITES,
    HEADER_BYTES,
    MAX_IDLE_RECORDS,
    OVERHEAD_BYTES,
    RECORD_BYTES,
    RecordBuffer,
    RecordError,
    RecordOpener,
    RecordSealer,
)
from daemon.network.tls.session import PIECE_BYTES, PIECE_RECORDS, TlsSession
from protocol.errors import Unreachable

AES_256, AES_128 = (
    CIPHER_SUITES[name] for name in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")
)
SECRET = bytes(range(48))
PATIENCE_S = 30.0
LARGE = random.Random(7).randbytes(3_000_017)  # only to be told apart


# ------------------------------------------------------------------------------------------------ RFC 8448, section 3

CLIENT_SECRET = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
CLIENT_DATA = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4"
)
CLIENT_CLOSE = bytes.fromhex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3")


def test_the_example_of_the_rfc_is_sealed_to_the_bit() -> None:
    sealing = RecordSealer(AES_128, CLIENT_SECRET)
    assert b"".join(sealing.data(memoryview(bytes(range(50))), RecordBuffer(1))) == CLIENT_DATA
    assert sealing.close() == CLIENT_CLOSE


def test_the_example_of_the_rfc_is_opened() -> None:
    opening = RecordOpener(AES_128, CLIENT_SECRET)
    assert opened(opening, CLIENT_DATA + CLIENT_CLOSE) == bytes(range(50))
    assert opening.ended


# ------------------------------------------------------------------------------------------------ both ends ours


def opened(
    opening: RecordOpener,
    wire: bytes,
    steps: Callable[[], int] = lambda: 1 << 20,
    rooms: Callable[[], int] = lambda: 1 << 16,
) -> bytes:
    """What a reader has of `wire` that comes `steps()` bytes at a time and goes into targets of
    `rooms()` bytes.
    """
    buffer, have, at, content = RecordBuffer(len(wire) // RECORD_BYTES + 3), 0, 0, bytearray()
    while True:
        target = memoryview(bytearray(rooms()))
        used, size = opening.open(buffer, have, target)
        content += target[:size]
        buffer.memory[: have - used] = bytes(buffer.memory[used:have])
        have -= used
        if not size and not used:
            if at == len(wire) or opening.ended:
                return bytes(content)
            came = wire[at : at + steps()]
            buffer.memory[have : have + len(came)] = came
            have, at = have + len(came), at + len(came)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_sealed_is_opened_however_it_comes(seed: int) -> None:
    chance = random.Random(seed)  # which case, no secret
    suite = chance.choice([AES_128, AES_256])
    sealing, opening, wire, content = (
        RecordSealer(suite, SECRET),
        RecordOpener(suite, SECRET),
        b"",
        b"",
    )
    for _ in range(chance.randrange(1, 6)):
        piece = chance.randbytes(
            chance.choice(
                [
                    0,
                    1,
                    5,
                    RECORD_BYTES - 1,
                    RECORD_BYTES,
                    RECORD_BYTES + 1,
                    3 * RECORD_BYTES,
                    70_001,
                ]
            )
        )
        wire += b"".join(sealing.data(memoryview(piece), RecordBuffer(8)))
        content += piece
        if chance.random() < 0.3:
            wire += sealing.update()
    wire += sealing.close()
    most = chance.choice([7, 1_000, 40_000, 1 << 20])
    room = (
        chance.choice([1, 100, RECORD_BYTES, RECORD_BYTES + 1, 100_000])
        if len(content) < 50_000
        else 100_000
    )
    assert (
        opened(
            opening,
            wire,
            lambda: chance.randrange(1, most + 1),
            lambda: chance.randrange(1, room + 1),
        )
        == content
    )
    assert opening.ended


def sealed(number: int, inner: bytes) -> bytes:
    """A record that says whatever `inner` is: content, kind, padding."""
    iv = int.from_bytes(AES_256.expand(SECRET, "iv", 12), "big")
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    return header + AESGCM(AES_256.expand(SECRET, "key", 32)).encrypt(
        (iv ^ number).to_bytes(12, "big"), inner, header
    )


def test_padding_is_taken_off() -> None:
    # With 39 bytes of padding as long as a full record.
    full = bytes(RECORD_BYTES - 40) + b"x"
    wire = (
        sealed(0, b"abc\x17" + bytes(300))
        + sealed(1, full + b"\x17" + bytes(39))
        + sealed(2, b"d\x17")
    )
    assert (
        opened(RecordOpener(AES_256, SECRET), wire, rooms=lambda: 1 << 17) == b"abc" + full + b"d"
    )


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (bytes(20), "without content"),
        (b"\x02\x28\x15", "gave up: handshake failure"),
        (b"\x02\x74\x15", "gave up: certificate required"),
        (b"\x02\xfe\x15", "gave up: alert 254"),
        (b"\x02\x15", "of kind 21"),
        (b"\x01\x14", "of kind 20"),
        (b"\x16", "of kind 22"),
        (b"\x18\0\0\1\2\x16", "kind 24 after the handshake"),
        (b"\x18\0\0\1\0\4\x16", "kind 24 after the handshake"),
        (b"\0\0\0\0\x16", "kind 0 after the handshake"),
        (bytes(RECORD_BYTES + 1) + b"\x17", f"a record of {RECORD_BYTES + 1} bytes"),
    ],
)
def test_what_a_record_may_not_hold(inner: bytes, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        opened(RecordOpener(AES_256, SECRET), sealed(0, inner))


@pytest.mark.parametrize(
    "wire",
    [
        b"\x16\x03\x03\x00\x20" + bytes(32),
        b"\x17\x03\x03\x00\x10" + bytes(16),
        b"\x17\x03\x03\x41\x01",
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_what_is_no_record(wire: bytes) -> None:
    with pytest.raises(RecordError, match="a record of kind"):
        opened(RecordOpener(AES_256, SECRET), wire)


def test_nothing_that_was_changed_left_out_or_sent_twice_is_taken() -> None:
    first, second = sealed(0, bytes(RECORD_BYTES) + b"\x17"), sealed(1, b"b" * 50 + b"\x17")
    assert opened(RecordOpener(AES_256, SECRET), first + second) == bytes(RECORD_BYTES) + b"b" * 50
    chance = random.Random(3)  # which bit, no secret
    for wire in (second, first + first, first + second + second):
        with pytest.raises(RecordError, match="damaged or forged"):
            opened(RecordOpener(AES_256, SECRET), wire)
    for _ in range(100):
        damaged = bytearray(first + second)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        with pytest.raises(RecordError):
            # A header that announces more has it.
            opened(RecordOpener(AES_256, SECRET), bytes(damaged) + bytes(20_000))


def test_records_without_data_are_borne_for_a_while() -> None:
    nothing = [sealed(i, b"\x17") for i in range(MAX_IDLE_RECORDS)]
    assert (
        opened(
            RecordOpener(AES_256, SECRET), b"".join(nothing) + sealed(MAX_IDLE_RECORDS, b"a\x17")
        )
        == b"a"
    )
    with pytest.raises(RecordError, match="in a row without data"):
        opened(RecordOpener(AES_256, SECRET), b"".join(nothing) + sealed(MAX_IDLE_RECORDS, b"\x17"))


def test_a_message_may_come_in_parts_and_has_an_end() -> None:
    ticket = b"\x04\x00\x01\x00" + bytes(256)
    wire = sealed(0, ticket[:3] + b"\x16") + sealed(1, ticket[3:] + b"\x16") + sealed(2, b"a\x17")
    assert opened(RecordOpener(AES_256, SECRET), wire) == b"a"
    with pytest.raises(RecordError, match="a handshake message of"):
        opened(
            RecordOpener(AES_256, SECRET),
            b"".join(sealed(i, b"\x04\xff\xff\xff" + bytes(16_000) + b"\x16") for i in range(5)),
        )


def test_small_records_let_others_have_their_turn() -> None:
    wire = b"".join(sealed(i, b"a\x17") for i in range(records.TURN_RECORDS + 5))
    buffer = RecordBuffer(2)
    buffer.memory[: len(wire)] = wire
    used, size = RecordOpener(AES_256, SECRET).open(
        buffer, len(wire), memoryview(bytearray(1 << 16))
    )
    assert size == records.TURN_RECORDS
    assert used == size * (OVERHEAD_BYTES + 1)


# ------------------------------------------------------------------------------------------------ OpenSSL at the other end


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
        theirs.settimeout(PATIENCE_S)
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


async def all_of(session: TlsSession, size: int) -> bytes:
    target = memoryview(bytearray(size))
    at = 0
    while at < size and (got := await session.receive_into(target[at:])):
        at += got
    return bytes(target[:at])


async def keep(where: list[bytes], session: TlsSession, size: int) -> None:
    where.append(await all_of(session, size))


def told_back(
    sock: socket.socket, certificate: BulkCertificate, size: int, *, server: bool
) -> None:
    """OpenSSL's side: send back what comes, then the end, and read until theirs."""
    with context_of(certificate, server=server).wrap_socket(sock.dup(), server_side=server) as tls:
        data = bytearray()
        while len(data) < size:
            data += tls.recv(1 << 16)
        tls.sendall(data)
        assert tls.recv(1) == b""
        tls.unwrap()


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("key_records", [records.MAX_KEY_RECORDS, 1])
async def test_openssl_understands_us_and_we_it(
    certificate: BulkCertificate, monkeypatch: pytest.MonkeyPatch, server: bool, key_records: int
) -> None:
    """As a server OpenSSL also sends tickets; with another key for each piece it has to follow
    ours.
    """
    monkeypatch.setattr(records, "MAX_KEY_RECORDS", key_records)
    with trio.fail_after(PATIENCE_S), socket_pair() as (ours, theirs):
        async with (
            trio.open_nursery() as nursery,
            session_over(ours, certificate, server=server) as session,
        ):
            nursery.start_soon(
                lambda: trio.to_thread.run_sync(
                    lambda: told_back(theirs, certificate, len(LARGE), server=not server)
                )
            )
            assert await session.handshake() == certificate.der
            await session.send_all(LARGE)
            assert await all_of(session, len(LARGE)) == LARGE
            await session.send_eof()
            assert await session.receive_some(1) == b""


@pytest.mark.skipif(
    shutil.which("openssl") is None,
    reason="no openssl command here: its client asks for another key",
)
async def test_another_key_is_given_when_it_is_asked_for(certificate: BulkCertificate) -> None:
    with trio.fail_after(PATIENCE_S):
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
                assert session._opening is not None
                await client.stdin.send_all(b"before\n")
                assert await all_of(session, 7) == b"before\n"
                after: list[bytes] = []
                async with trio.open_nursery() as reading:
                    reading.start_soon(keep, after, session, 6)
                    # A command, when it is all that can be read at once.
                    await client.stdin.send_all(b"K\n")
                    while not session._opening.update_asked:
                        await trio.sleep(0.01)
                    await client.stdin.send_all(b"after\n")
                assert after == [b"after\n"]
                await session.send_all(b"under another key\n")
                assert not session._opening.update_asked
                await client.stdin.send_all(b"thanks\n")
                assert await all_of(session, 7) == b"thanks\n"
                client.terminate()


async def test_a_connection_that_is_cut_is_no_end(certificate: BulkCertificate) -> None:
    """Who can cut a connection short must not be able to make it look as if all had been said."""

    def say_and_vanish(sock: socket.socket) -> None:
        with context_of(certificate, server=True).wrap_socket(sock, server_side=True) as tls:
            tls.sendall(b"half of it")
            os.close(tls.detach())  # without a close_notify

    with trio.fail_after(PATIENCE_S), socket_pair() as (ours, theirs):
        async with (
            trio.open_nursery() as nursery,
            session_over(ours, certificate, server=False) as session,
        ):
            nursery.start_soon(trio.to_thread.run_sync, say_and_vanish, theirs.dup())
            await session.handshake()
            theirs.close()
            assert await all_of(session, 10) == b"half of it"
            with pytest.raises(Unreachable, match=r"without a word|connection broken"):
                await session.receive_some(1)
            assert not session.usable


def test_a_record_says_how_long_it_is() -> None:
    wire = b"".join(
        RecordSealer(AES_256, SECRET).data(memoryview(bytes(RECORD_BYTES + 1)), RecordBuffer(1))
    )
    assert len(wire) == RECORD_BYTES + 1 + 2 * OVERHEAD_BYTES
    assert wire[:HEADER_BYTES] == b"\x17\x03\x03\x40\x11"


def test_a_piece_in_the_shortest_records_is_written_by_one_call() -> None:
    content = memoryview(bytes(PIECE_BYTES))
    sealing = RecordSealer(AES_128, SECRET[:32], limit=512)
    pieces = [sealing.update(), *sealing.data(content, RecordBuffer(PIECE_RECORDS))]
    assert len(pieces) <= os.sysconf("SC_IOV_MAX")
    assert sum(map(len, pieces[1:])) == PIECE_BYTES + PIECE_BYTES // 512 * OVERHEAD_BYTES
