"""Reads and writes the contributor's ledger as a safetensors file.

The tensors are `residue`, the trajectory's `displacement` and `later`, `offered`, and `sent-<seq>`
for each offer with an earlier parent. The metadata holds the counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from daemon.disk.atomic import FaultHook, write_atomically
from daemon.disk.tensors import DamagedFile, encode, read
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.ports.disk_records import LedgerRecord, SentOffer

FORMAT = "hypergpu/ledger/2"
_FORMATS = "hypergpu/ledger/"
SENT = "sent-"


def write_ledger(path: Path, record: LedgerRecord, fault: FaultHook) -> int:
    """Write the ledger, durable on return; return its size.

    Raises `DiskFull`; the old file is then untouched.
    """
    metadata = {
        "format": FORMAT,
        "run": record.run.hex(),
        "tip": record.tip.hex(),
        "next_seq": str(record.next_seq),
        "weight": str(record.weight),
        "carried": str(record.carried),
        "offered_seq": str(record.offered_seq),
        "offered_weight": str(record.offered_weight),
        "offered_digest": record.offered_digest.hex(),
        "samples": str(record.samples),
        "later_samples": str(record.later_samples),
        "drawn": str(record.drawn),
        "rounds": str(record.rounds),
        "later_rounds": str(record.later_rounds),
    }
    tensors: dict[str, npt.NDArray[np.generic]] = {
        "residue": record.residue,
        "displacement": record.displacement,
        "later": record.later,
        "offered": np.frombuffer(record.offered, np.uint8),
    }
    for sent in record.sent:
        # Zeros in front let the names sort by sequence number.
        name = f"{SENT}{sent.seq:020d}"
        metadata[name] = f"{sent.weight} {sent.digest.hex()} {sent.factor!r} {sent.left}"
        tensors[name] = np.frombuffer(sent.encoded, np.uint8)
    return write_atomically(path, encode(tensors, metadata), fault)


def read_ledger(path: Path, run: Digest) -> LedgerRecord:
    """Read the ledger of a run.

    Raises `DamagedFile`, `FileNotFoundError`, or `UserError("LEDGER")` for the file of another
    version.
    """
    tensors, metadata = read(path)
    version = metadata.get("format", "")
    if version.startswith(_FORMATS) and version != FORMAT:
        raise UserError(
            "LEDGER",
            f"Another version of HyperGPU wrote the pending work in {path}.",
            why=f"the file has format {version.removeprefix(_FORMATS)}, but this version reads and"
            f" writes format {FORMAT.removeprefix(_FORMATS)}",
            fix="start the version that wrote it, or start with another --home; the file stays"
            " unchanged",
            exit_code=2,
        )
    if metadata.get("format") != FORMAT or metadata.get("run") != run.hex():
        raise DamagedFile("is not this run's")
    try:
        return LedgerRecord(
            run=run,
            tip=bytes.fromhex(metadata["tip"]),
            next_seq=int(metadata["next_seq"]),
            weight=int(metadata["weight"]),
            carried=int(metadata["carried"]),
            offered_seq=int(metadata["offered_seq"]),
            offered_weight=int(metadata["offered_weight"]),
            offered_digest=bytes.fromhex(metadata["offered_digest"]),
            offered=tensors["offered"].tobytes(),
            residue=tensors["residue"],
            samples=int(metadata["samples"]),
            displacement=tensors["displacement"],
            later_samples=int(metadata["later_samples"]),
            later=tensors["later"],
            drawn=int(metadata["drawn"]),
            rounds=int(metadata["rounds"]),
            later_rounds=int(metadata["later_rounds"]),
            sent=tuple(
                _sent(name, metadata[name], tensors[name])
                for name in sorted(tensors)
                if name.startswith(SENT)
            ),
        )
    except (KeyError, ValueError) as error:
        raise DamagedFile(f"lacks something ({error})") from None


def _sent(name: str, words: str, encoded: npt.NDArray[np.generic]) -> SentOffer:
    weight, digest, factor, left = words.split()
    return SentOffer(
        seq=int(name.removeprefix(SENT)),
        weight=int(weight),
        digest=bytes.fromhex(digest),
        encoded=encoded.tobytes(),
        factor=float(factor),
        left=int(left),
    )
