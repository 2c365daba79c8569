"""`hypergpud bench codecs`: what each codec costs and loses, compiled and in numpy, on one core.

Gigabytes are of float32, before encoding or after decoding, over the CPU seconds of the thread:
fresh memory counts, and time that other processes take does not. `encode` makes an offer out of
sums of weighted gradients (it divides by the weight). `reduce` makes the mean of four members'
encodings. `clipped` makes their clipped mean, as members of rules 4 do, and `times` is how much
longer that takes: the median over all repetitions, with the least and the greatest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import msgspec
import numpy as np

from protocol.averaging.clip import ClipPart, ClipScale
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.codec import Codec, codec_named, entries, implementation
from protocol.errors import InvariantBroken

# The samples of four members.
WEIGHTS = (70, 101, 333, 64)


class CodecRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One codec in one implementation.

    `size_ratio` is encoded bytes over float32 bytes. `max_error` is the greatest error over the
    greatest value.
    """

    codec: str
    implementation: str
    elements: int
    encode_gb_s: float
    check_gb_s: float
    decode_gb_s: float
    reduce_gb_s: float
    clipped_gb_s: float
    # Seconds of the clipped mean over seconds of the plain one: least, median, greatest.
    clipped_times: tuple[float, float, float]
    size_ratio: float
    max_error: float


def bench_codecs(elements: int, repeat: int) -> list[CodecRecord]:
    """Measure every codec in every implementation.

    Raises:
        InvariantBroken: if two implementations of a codec make different bytes.
    """
    values = np.random.Generator(np.random.PCG64(3)).standard_normal(elements, np.float32)
    records = []
    compiled = implementation() == "compiled"
    for entry in entries():
        if entry.has_loops and compiled:
            codec = codec_named(entry.name)
            records.append(_measured(codec, "compiled", values, repeat))
            if codec.encode(values, 3) != entry.reference.encode(values, 3):
                raise InvariantBroken(f"{entry.name} makes other bytes compiled than in numpy")
        records.append(_measured(entry.reference, "numpy", values, repeat))
    return records


def _measured(codec: Codec, kind: str, values: Vector, repeat: int) -> CodecRecord:
    size_bytes, out = values.nbytes, np.empty_like(values)
    data = codec.encode(values)
    quarter = (
        max(values.size // len(WEIGHTS) // CHUNK_ELEMENTS, 1) * CHUNK_ELEMENTS
        if values.size >= CHUNK_ELEMENTS
        else values.size
    )
    parts = [(weight, data[: codec.size(quarter)]) for weight in WEIGHTS]

    clip_parts = [ClipPart(weight=weight, data=part, votes=True) for weight, part in parts]
    scale = ClipScale(norm=float(np.sqrt(quarter)), parameters=quarter)

    def plain() -> None:
        codec.mean(parts, out[:quarter])

    def clipped() -> None:
        codec.clipped_mean(clip_parts, scale, out[:quarter])

    times = sorted(_cpu_seconds(clipped) / _cpu_seconds(plain) for _ in range(repeat))

    def rate(work: Callable[[], object], done_bytes: int) -> float:
        return done_bytes / median([_cpu_seconds(work) for _ in range(repeat)]) / 1e9

    record = CodecRecord(
        codec=codec.name,
        implementation=kind,
        elements=values.size,
        encode_gb_s=rate(lambda: codec.encode(values, WEIGHTS[0]), size_bytes),
        check_gb_s=rate(lambda: codec.check(data, values.size), size_bytes),
        decode_gb_s=rate(lambda: codec.decode(data, out), size_bytes),
        reduce_gb_s=rate(plain, 4 * quarter * len(parts)),
        clipped_gb_s=rate(clipped, 4 * quarter * len(parts)),
        clipped_times=(times[0], median(times), times[-1]),
        size_ratio=len(data) / size_bytes,
        max_error=0.0,
    )
    codec.decode(data, out)
    return msgspec.structs.replace(
        record, max_error=float(np.abs(out - values).max() / np.abs(values).max())
    )


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def table(records: Sequence[CodecRecord]) -> str:
    """The records as a table for a terminal."""
    rows: list[tuple[str, ...]] = [
        (
            "codec",
            "by",
            "encode GB/s",
            "check GB/s",
            "decode GB/s",
            "reduce GB/s",
            "clipped GB/s",
            "times",
            "size",
            "max error",
        )
    ]
    for record in records:
        rates = (
            record.encode_gb_s,
            record.check_gb_s,
            record.decode_gb_s,
            record.reduce_gb_s,
            record.clipped_gb_s,
        )
        least, usual, greatest = record.clipped_times
        rows.append(
            (
                record.codec,
                record.implementation,
                *(f"{rate:.1f}" for rate in rates),
                f"{usual:.1f} ({least:.1f}-{greatest:.1f})",
                f"{record.size_ratio:.4f}",
                f"{record.max_error:.1e}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
