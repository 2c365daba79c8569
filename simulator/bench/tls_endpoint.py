"""One end of `bench tls`, in a process of its own: sends or receives, and reports the time."""

from __future__ import annotations

import resource
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from daemon.network.tcp import disable_nagle
from daemon.network.tls.handshake import TlsContext
from daemon.network.tls.records import PIECE_BYTES
from daemon.network.tls.session import TlsSession

# The bytes sent at once: a slice of 10 million float32 among four members.
PARCEL_BYTES = 10 << 20
DONE = b"."
HOST = "127.0.0.1"


class TlsEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an end does.

    With `port` 0 it listens, prints its port, and sends. Otherwise it receives what is sent on that
    port. `certificate` is a file.
    """

    way: str
    port: int
    parcels: int
    certificate: str


class TransferTime(msgspec.Struct, frozen=True, kw_only=True):
    """What one end measured of itself."""

    seconds: float
    cpu_seconds: float


def words_of(end: TlsEndpoint) -> str:
    """The one argument of the program."""
    return msgspec.json.encode(end).decode()


def made_of(line: bytes) -> TransferTime:
    """Decode an end's last line."""
    return msgspec.json.decode(line, type=TransferTime)


def _context(certificate: str, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    # The identity check costs nothing per byte.
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(certificate)
    return context


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _timed(work: Callable[[], None]) -> TransferTime:
    began, cpu = time.monotonic(), _cpu()
    work()
    return TransferTime(seconds=time.monotonic() - began, cpu_seconds=_cpu() - cpu)


def _send(way: str, sock: socket.socket, parcels: int, certificate: str) -> TransferTime:
    data = memoryview(bytes(PARCEL_BYTES))
    if way == "bulk":
        return trio.run(_send_bulk, sock, parcels, data, certificate)
    stream = (
        _context(certificate, server=True).wrap_socket(sock, server_side=True)
        if way == "blocking"
        else sock
    )

    def work() -> None:
        for _ in range(parcels):
            stream.sendall(data)
        assert stream.recv(1) == DONE

    with stream:
        return _timed(work)


def _receive(way: str, sock: socket.socket, parcels: int, certificate: str) -> TransferTime:
    target = memoryview(bytearray(PARCEL_BYTES))
    if way == "bulk":
        return trio.run(_receive_bulk, sock, parcels, target, certificate)
    stream = _context(certificate, server=False).wrap_socket(sock) if way == "blocking" else sock

    def work() -> None:
        for _ in range(parcels):
            at = 0
            while at < PARCEL_BYTES:
                at += stream.recv_into(target[at : at + PIECE_BYTES])
        stream.sendall(DONE)

    with stream:
        return _timed(work)


async def _session(sock: socket.socket, certificate: str, *, server: bool) -> TlsSession:
    transport = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    disable_nagle(transport)
    context = TlsContext(Path(certificate), server_side=server)
    session = TlsSession(transport, context, lambda _: True)
    await session.handshake()
    return session


async def _send_bulk(
    sock: socket.socket, parcels: int, data: memoryview, certificate: str
) -> TransferTime:
    session = await _session(sock, certificate, server=True)
    began, cpu = time.monotonic(), _cpu()
    for _ in range(parcels):
        await session.send_all(data)
    assert await session.receive_some(1) == DONE
    made = TransferTime(seconds=time.monotonic() - began, cpu_seconds=_cpu() - cpu)
    await session.aclose()
    return made


async def _receive_bulk(
    sock: socket.socket, parcels: int, target: memoryview, certificate: str
) -> TransferTime:
    session = await _session(sock, certificate, server=False)
    began, cpu = time.monotonic(), _cpu()
    for _ in range(parcels):
        at = 0
        while at < PARCEL_BYTES:
            at += await session.receive_into(target[at:])
    await session.send_all(DONE)
    made = TransferTime(seconds=time.monotonic() - began, cpu_seconds=_cpu() - cpu)
    await session.aclose()
    return made


def main() -> None:
    end = msgspec.json.decode(sys.argv[1], type=TlsEndpoint)
    if end.port:
        made = _receive(
            end.way, socket.create_connection((HOST, end.port)), end.parcels, end.certificate
        )
    else:
        with socket.create_server((HOST, 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            sock, _ = listener.accept()
        made = _send(end.way, sock, end.parcels, end.certificate)
    print(msgspec.json.encode(made).decode(), flush=True)


if __name__ == "__main__":
    main()
