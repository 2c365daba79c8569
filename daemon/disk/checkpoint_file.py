"""Reads and writes a checkpoint as a safetensors file.

The tensors are `anchor`, `momentum` and `inner`. The metadata names the run, the round, the
certificate, the task with its options, and the model's tensors with their shapes in order.
"""

from __future__ import annotations

import base64
import os
import re
from contextlib import suppress
from pathlib import Path

import msgspec

from daemon.disk.atomic import FaultHook, write_atomically
from daemon.disk.tensors import DamagedFile, encode, read
from protocol.digest import Digest
from protocol.ports.disk_records import Checkpoint

FORMAT = "hypergpu/checkpoint/1"
SHAPES = "shapes"
# Half of the largest header (`tensors.py`). Models of more than 5,000 tensors are saved without
# names and shapes.
MOST_SHAPES_BYTES = 512 << 10
STOOD = "stood"
TASK, TASK_OPTIONS = "task", "task_options"
# Runs with more than 4,000 members are saved without the tip.
MOST_STOOD_BYTES = 384 << 10
_NAME = re.compile(r"(\d{10,20})-([0-9a-f]{64})\.safetensors")


class CheckpointEntry(msgspec.Struct, frozen=True, order=True):
    """A checkpoint file. The greatest entry is the newest checkpoint.

    Two entries of one number are of different branches; the one written later counts.
    """

    number: int
    written_ns: int
    path: Path
    tip: Digest


def checkpoints_in(directory: Path) -> list[CheckpointEntry]:
    """Return the checkpoints in the directory by their names, damaged or not, oldest first.

    Raises `OSError` where the directory cannot be read.
    """
    kept = []
    for name in _names(directory):
        parts = _NAME.fullmatch(name)
        if parts is not None:
            path = directory / name
            # Another process removed it meanwhile, so a newer one exists.
            with suppress(FileNotFoundError):
                kept.append(
                    CheckpointEntry(
                        int(parts[1]), path.stat().st_mtime_ns, path, bytes.fromhex(parts[2])
                    )
                )
    return sorted(kept)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def checkpoint_name(number: int, tip: Digest) -> str:
    """Return the file name that `checkpoints_in` reads."""
    return f"{number:010d}-{tip.hex()}.safetensors"


def _metadata(run: Digest, tip: Digest, number: int) -> dict[str, str]:
    return {"format": FORMAT, "run": run.hex(), "tip": tip.hex(), "number": str(number)}


def write_checkpoint(path: Path, checkpoint: Checkpoint, fault: FaultHook, written_ns: int) -> int:
    """Write a checkpoint, durable on return; return its size. Raises `DiskFull`."""
    tensors = {
        "anchor": checkpoint.anchor,
        "momentum": checkpoint.momentum,
        "inner": checkpoint.inner,
    }
    metadata = _metadata(checkpoint.run, checkpoint.tip, checkpoint.number)
    shapes = msgspec.json.encode(checkpoint.shapes)
    if len(shapes) <= MOST_SHAPES_BYTES:
        metadata[SHAPES] = shapes.decode()
    stood = base64.b64encode(checkpoint.stood)
    if len(stood) <= MOST_STOOD_BYTES:
        metadata[STOOD] = stood.decode()
    if checkpoint.task:
        metadata |= {TASK: checkpoint.task, TASK_OPTIONS: checkpoint.task_options}
    return write_atomically(path, encode(tensors, metadata), fault, written_ns=written_ns)


def read_checkpoint(path: Path, run: Digest, tip: Digest, number: int) -> Checkpoint:
    """Read a checkpoint. Raises `DamagedFile` or `FileNotFoundError`."""
    tensors, metadata = read(path)
    expected = _metadata(run, tip, number)
    if {key: metadata.get(key) for key in expected} != expected:
        raise DamagedFile("is not what its name says")
    try:
        anchor, momentum, inner = (tensors[name] for name in ("anchor", "momentum", "inner"))
    except KeyError as error:
        raise DamagedFile(f"lacks {error}") from None
    return Checkpoint(
        run=run,
        tip=tip,
        number=number,
        anchor=anchor,
        momentum=momentum,
        inner=inner,
        shapes=_shapes(metadata.get(SHAPES, "[]")),
        stood=base64.b64decode(metadata.get(STOOD, "")),
        task=metadata.get(TASK, ""),
        task_options=metadata.get(TASK_OPTIONS, ""),
    )


def _shapes(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Decode the names and shapes of the tensors. Raises `DamagedFile`."""

    try:
        return msgspec.json.decode(text, type=tuple[tuple[str, tuple[int, ...]], ...])
    except msgspec.DecodeError as error:
        raise DamagedFile(f"names shapes that cannot be read ({error})") from None
