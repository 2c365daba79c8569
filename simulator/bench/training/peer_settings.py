"""The settings of a peer of the benchmark, and the lines that it prints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

ARMS = ("native", "hivemind-a", "hivemind-b", "gloo", "alone")
"""hivemind-a averages gradients of a large batch, hivemind-b parameters after local updates. gloo
is data parallel: the ideal where its network is free."""

Arm = Literal["native", "hivemind-a", "hivemind-b", "gloo", "alone"]


class OptimizerRules(msgspec.Struct, frozen=True, kw_only=True):
    """AdamW with clipping, or Muon with it, as the native engine's `[inner]`."""

    learning_rate: float
    optimizer: Literal["adamw", "muon"] = "adamw"
    # Muon's own.
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip_norm: float = 1.0


class HivemindRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of `hivemind.Optimizer`, by its own names where it has one."""

    target_batch_size: int
    # One of the engine's COMPRESSIONS.
    compression: str = "float16"
    matchmaking_time: float = 2.0
    averaging_timeout: float = 30.0
    # Delayed parameter updates, which hivemind recommends for slow links. Large batch only.
    delayed: bool = True


class TrainingPeer(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one peer process."""

    arm: Arm
    index: int
    peers: int
    seed: int
    batch_size: int
    # The options of the paced task.
    task_options: dict[str, int | float | str | bool]
    optimizer: OptimizerRules
    hivemind: HivemindRules | None = None
    # The sealed manifest of the native arm, as msgpack.
    manifest: bytes = b""
    # The folder of the run, on a disk that all peers share.
    folder: str
    spacing_s: float
    host: str
    device: str
    # What the first peer said when it listened; empty for the first peer.
    join: str = ""


def home_of(folder: Path, index: int) -> Path:
    """The home of a native peer in the folder of its run."""
    return folder / f"home-{index}"


class PeerLine(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """The base of all lines between conductor and peer: one JSON object per line."""


class PeerListens(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """From a peer: it is up. `info` is what the others need to find it."""

    info: str


class PeerReady(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """From a peer: it knows the others and could train now."""


class StartTraining(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """To a peer: train between these moments of the monotonic clock."""

    at_s: float
    until_s: float


class PeerDone(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """From a peer: the time is over.

    `memory_bytes` is the peak of each kind of process, above what the process had before it held
    the model where `process` says "node". `notes` are what the engine reported, shortened.
    """

    memory_bytes: dict[str, int] = {}
    notes: tuple[str, ...] = ()


class PeerFailed(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """From a peer: it cannot train."""

    why: str


Said = PeerListens | PeerReady | PeerDone | PeerFailed
_said: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)
_start: msgspec.json.Decoder[StartTraining] = msgspec.json.Decoder(StartTraining)


def encode(line: PeerLine) -> bytes:
    """Return the line with its line feed."""
    return msgspec.json.encode(line) + b"\n"


def decode_said(line: bytes) -> Said:
    """Decode a line of a peer."""
    return _said.decode(line)


class PeerPipe:
    """A peer's two pipes. What libraries print goes to the log."""

    def __init__(self) -> None:
        self._output = os.dup(1)
        self._input = os.fdopen(os.dup(0), "rb")
        os.dup2(2, 1)

    def say(self, line: Said) -> None:
        data = memoryview(encode(line))
        while data:
            data = data[os.write(self._output, data) :]

    def start(self) -> StartTraining:
        """Wait for the start. Raises `EOFError` where the conductor is gone."""
        line = self._input.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the conductor is gone")
        return _start.decode(line)

    def wait_for_end(self) -> None:
        """Wait until the conductor is gone."""
        while self._input.readline():
            pass
