"""Snapshots of the parameters, which a peer writes while it trains."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np

from protocol.averaging.vector_layout import Vector

LINES = "snapshots.jsonl"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters at a moment of the monotonic clock.

    `samples` are all that the parameters have learned from. `file` lies beside the list.
    """

    at_s: float
    samples: int
    file: str


class SnapshotWriter:
    """Writes snapshots into a folder of one peer, at most one in `spacing_s`."""

    def __init__(self, folder: Path, spacing_s: float) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._spacing_s = folder, spacing_s
        self._count = 0
        self._due_s = 0.0

    @property
    def due(self) -> bool:
        """Whether the last snapshot is old enough for another."""
        return time.monotonic() >= self._due_s

    def write(self, parameters: Vector, samples: int) -> None:
        """Write a snapshot: float32, shape (parameters,). The list names it when it is complete."""
        at_s = time.monotonic()
        self._due_s = at_s + self._spacing_s
        name = f"{self._count:05d}.f32"
        self._count += 1
        parameters.astype("<f4", copy=False).tofile(self._folder / name)
        with (self._folder / LINES).open("ab") as lines:
            line = Snapshot(at_s=at_s, samples=samples, file=name)
            lines.write(msgspec.json.encode(line) + b"\n")


def read_snapshots(folder: Path) -> list[Snapshot]:
    """Return the snapshots of one peer, in order of time."""
    path = folder / LINES
    if not path.exists():
        return []
    decoder = msgspec.json.Decoder(Snapshot)
    return [decoder.decode(line) for line in path.read_bytes().split(b"\n")[:-1]]


def load(folder: Path, snapshot: Snapshot) -> Vector:
    """Return a snapshot's parameters, float32, shape (parameters,)."""
    vector: Vector = np.fromfile(folder / snapshot.file, "<f4")
    return vector
