"""`hypergpud bench tls`: one stream between two processes, in the clear, through a blocking TLS socket, and as bulk streams do it."""

from __future__ import annotations

import multiprocessing
import resource
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import msgspec
import trio

from daemon.network.certificate import BulkCertificate, load_or_make
from daemon.network.tls import PIECE_BYTES, TlsSession, tune

WAYS = ("tcp", "blocking", "bulk")
PARCEL_BYTES = 10 << 20  # what is sent at once: a slice of 10 million float32 among four
DONE = b"."


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One way. Rates are of payload; CPU seconds for each GB (10^9 bytes), sender and receiver together; medians."""

    way: str
    size_bytes: int
    gb_per_s_median: float
    gb_per_s_min: float
    gb_per_s_max: float
    cpu_seconds_per_gb: float


class _Try(msgspec.Struct, frozen=True):
    seconds: float
    cpu_seconds: float


def bench_tls(size_bytes: int, repeat: int) -> list[Record]:
    """All ways in turn, `repeat` times."""
    parcels = max(1, size_bytes // PARCEL_BYTES)
    tries: dict[str, list[_Try]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="hypergpu-tls-") as folder:
        certificate = load_or_make(Path(folder) / "bulk.pem", "bench")
        for _ in range(repeat):
            for way in WAYS:
                tries[way].append(_once(way, parcels, certificate))
    return [_record(way, parcels * PARCEL_BYTES, made) for way, made in tries.items()]


def _record(way: str, size: int, made: list[_Try]) -> Record:
    rates = [size / 1e9 / one.seconds for one in made]
    return Record(
        way=way,
        size_bytes=size,
        gb_per_s_median=round(median(rates), 3),
        gb_per_s_min=round(min(rates), 3),
        gb_per_s_max=round(max(rates), 3),
        cpu_seconds_per_gb=round(median(one.cpu_seconds for one in made) / (size / 1e9), 3),
    )


def table(records: list[Record]) -> str:
    """For a terminal."""
    lines = ["way       GB/s   min    max    CPU s/GB"]
    lines += [
        f"{one.way:<9} {one.gb_per_s_median:<6.2f} {one.gb_per_s_min:<6.2f} {one.gb_per_s_max:<6.2f} {one.cpu_seconds_per_gb:.2f}"
        for one in records
    ]
    return "\n".join(lines)


def _once(way: str, parcels: int, certificate: BulkCertificate) -> _Try:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = spawn.Process(target=_receive, args=(way, listener.getsockname(), parcels, certificate, theirs))
        other.start()
        connected, _ = listener.accept()
    try:
        sent = _send(way, connected, parcels, certificate)
        received: _Try = _Try(*ours.recv())
    finally:
        other.join(10.0)
        other.kill()
    return _Try(max(sent.seconds, received.seconds), sent.cpu_seconds + received.cpu_seconds)


def _context(certificate: BulkCertificate, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who it is costs nothing by the byte
    context.load_cert_chain(certificate.path)
    return context


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _timed(work: Callable[[], None]) -> _Try:
    began, cpu = time.monotonic(), _cpu()
    work()
    return _Try(time.monotonic() - began, _cpu() - cpu)


def _send(way: str, sock: socket.socket, parcels: int, certificate: BulkCertificate) -> _Try:
    data = memoryview(bytes(PARCEL_BYTES))
    if way == "bulk":
        return trio.run(_send_bulk, sock, parcels, data, certificate)
    stream = _context(certificate, server=True).wrap_socket(sock, server_side=True) if way == "blocking" else sock

    def work() -> None:
        for _ in range(parcels):
            stream.sendall(data)
        assert stream.recv(1) == DONE

    with stream:
        return _timed(work)


def _receive(way: str, address: tuple[str, int], parcels: int, certificate: BulkCertificate, told: Connection) -> None:
    """In the other process."""
    sock = socket.create_connection(address)
    target = memoryview(bytearray(PARCEL_BYTES))
    if way == "bulk":
        made = trio.run(_receive_bulk, sock, parcels, target, certificate)
        told.send((made.seconds, made.cpu_seconds))
        return
    stream = _context(certificate, server=False).wrap_socket(sock) if way == "blocking" else sock

    def work() -> None:
        for _ in range(parcels):
            at = 0
            while at < PARCEL_BYTES:
                at += stream.recv_into(target[at : at + PIECE_BYTES])
        stream.sendall(DONE)

    with stream:
        made = _timed(work)
    told.send((made.seconds, made.cpu_seconds))


async def _session(sock: socket.socket, certificate: BulkCertificate, *, server: bool) -> TlsSession:
    transport = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    tune(transport)
    session = TlsSession(transport, _context(certificate, server=server), server_side=server)
    await session.handshake()
    return session


async def _send_bulk(sock: socket.socket, parcels: int, data: memoryview, certificate: BulkCertificate) -> _Try:
    session = await _session(sock, certificate, server=True)
    began, cpu = time.monotonic(), _cpu()
    for _ in range(parcels):
        await session.send_all(data)
    assert await session.receive_some(1) == DONE
    made = _Try(time.monotonic() - began, _cpu() - cpu)
    await session.aclose()
    return made


async def _receive_bulk(sock: socket.socket, parcels: int, target: memoryview, certificate: BulkCertificate) -> _Try:
    session = await _session(sock, certificate, server=False)
    began, cpu = time.monotonic(), _cpu()
    for _ in range(parcels):
        at = 0
        while at < PARCEL_BYTES:
            at += await session.receive_into(target[at:])
    await session.send_all(DONE)
    made = _Try(time.monotonic() - began, _cpu() - cpu)
    await session.aclose()
    return made
