"""A checkpoint as a safetensors file: `anchor`, `momentum` and `inner`, and in the metadata of which run, where in it, under which certificate."""

from __future__ import annotations

from pathlib import Path

from daemon.disk.atomic import FaultHook, write_atomically
from daemon.disk.tensors import Damaged, encode, read
from protocol.digest import Digest
from protocol.ports import Checkpoint

FORMAT = "hypergpu/checkpoint/1"


def _metadata(run: Digest, tip: Digest, number: int) -> dict[str, str]:
    return {"format": FORMAT, "run": run.hex(), "tip": tip.hex(), "number": str(number)}


def write_checkpoint(path: Path, checkpoint: Checkpoint, fault: FaultHook, written_ns: int) -> None:
    """Durable on return. Raises `DiskFull`."""
    tensors = {"anchor": checkpoint.anchor, "momentum": checkpoint.momentum, "inner": checkpoint.inner}
    metadata = _metadata(checkpoint.run, checkpoint.tip, checkpoint.number)
    write_atomically(path, encode(tensors, metadata), fault, written_ns=written_ns)


def read_checkpoint(path: Path, run: Digest, tip: Digest, number: int) -> Checkpoint:
    """Raises `Damaged`, or `FileNotFoundError` where there is none."""
    tensors, metadata = read(path)
    expected = _metadata(run, tip, number)
    if {key: metadata.get(key) for key in expected} != expected:
        raise Damaged("is not what its name says")
    try:
        anchor, momentum, inner = (tensors[name] for name in ("anchor", "momentum", "inner"))
    except KeyError as error:
        raise Damaged(f"lacks {error}") from None
    return Checkpoint(run=run, tip=tip, number=number, anchor=anchor, momentum=momentum, inner=inner)
