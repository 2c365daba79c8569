"""`hypergpud bench tls`: one stream between two processes: TCP, blocking TLS, and bulk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

import msgspec

from daemon.network.tls.certificate import BulkCertificate, load_or_make
from simulator.bench.processes import BenchProcesses
from simulator.bench.tls_endpoint import PARCEL_BYTES, TlsEndpoint, TransferTime, made_of, words_of

WAYS = ("tcp", "blocking", "bulk")
ENDS = "simulator.bench.tls_endpoint"
# A gigabyte at 10 MB/s.
ANSWER_S = 120.0


class TlsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One way to send.

    Rates are of payload. CPU seconds are for each GB (10^9 bytes), of sender and receiver together.
    All are medians.
    """

    way: str
    size_bytes: int
    gb_per_s_median: float
    gb_per_s_min: float
    gb_per_s_max: float
    cpu_seconds_per_gb: float


def bench_tls(size_bytes: int, repeat: int) -> list[TlsRecord]:
    """Measure all ways in turn, `repeat` times."""
    parcels = max(1, size_bytes // PARCEL_BYTES)
    tries: dict[str, list[TransferTime]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="hypergpu-tls-") as folder:
        certificate = load_or_make(Path(folder) / "bulk.pem", "bench")
        for _ in range(repeat):
            for way in WAYS:
                tries[way].append(_once(way, parcels, certificate))
    return [_record(way, parcels * PARCEL_BYTES, made) for way, made in tries.items()]


def _record(way: str, size: int, made: list[TransferTime]) -> TlsRecord:
    rates = [size / 1e9 / one.seconds for one in made]
    return TlsRecord(
        way=way,
        size_bytes=size,
        gb_per_s_median=round(median(rates), 3),
        gb_per_s_min=round(min(rates), 3),
        gb_per_s_max=round(max(rates), 3),
        cpu_seconds_per_gb=round(median(one.cpu_seconds for one in made) / (size / 1e9), 3),
    )


def table(records: list[TlsRecord]) -> str:
    """The records as a table for a terminal."""
    lines = ["way       GB/s   min    max    CPU s/GB"]
    lines += [
        f"{one.way:<9} {one.gb_per_s_median:<6.2f} {one.gb_per_s_min:<6.2f} "
        f"{one.gb_per_s_max:<6.2f} {one.cpu_seconds_per_gb:.2f}"
        for one in records
    ]
    return "\n".join(lines)


def _once(way: str, parcels: int, certificate: BulkCertificate) -> TransferTime:
    with BenchProcesses(f"bench tls, {way}") as ends:
        ends.start(
            ENDS,
            words_of(
                TlsEndpoint(way=way, port=0, parcels=parcels, certificate=str(certificate.path))
            ),
        )
        port = int(ends.read_line(0, ANSWER_S))
        ends.start(
            ENDS,
            words_of(
                TlsEndpoint(way=way, port=port, parcels=parcels, certificate=str(certificate.path))
            ),
        )
        sent, received = (made_of(ends.read_line(index, ANSWER_S)) for index in (0, 1))
    return TransferTime(
        seconds=max(sent.seconds, received.seconds),
        cpu_seconds=sent.cpu_seconds + received.cpu_seconds,
    )
