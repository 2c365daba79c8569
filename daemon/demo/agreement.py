"""Checks whether nodes hold the same model: compares the anchors in their checkpoint files.

It compares byte for byte, trusts no report of a daemon, and shares no code with the files' writer.
A safetensors file is an 8-byte little-endian length, that many bytes of JSON with the place of each
tensor, and then the tensors (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

ANCHOR = "anchor"
# The format's own readers allow 100 MB; a checkpoint has three tensors.
MAX_HEADER_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the anchors of all nodes are identical.

    `number` is the round that was compared; None where no round could be.
    """

    agreed: bool
    number: int | None
    reason: str


def compare_anchors(homes: Sequence[Path], run: str) -> Agreement:
    """Compare the anchors of the last checkpoint that all `homes` have of `run` (its id in hex).

    The nodes do not agree either if no checkpoint is common to all homes, if a file cannot be read,
    or with fewer than two homes.
    """
    if len(homes) < 2:
        return Agreement(
            agreed=False,
            number=None,
            reason=f"only {len(homes)} node was left, and a comparison needs two",
        )
    kept = [_checkpoints(home, run) for home in homes]
    common = set(kept[0]).intersection(*kept[1:])
    if not common:
        newest = ", ".join(
            f"{home.name} at {max(files, default='none')}"
            for home, files in zip(homes, kept, strict=True)
        )
        return Agreement(
            agreed=False, number=None, reason=f"no checkpoint is common to all: {newest}"
        )
    number = max(common)
    digests: dict[str, str] = {}
    for home, files in zip(homes, kept, strict=True):
        try:
            digests[home.name] = anchor_digest(files[number])
        except (OSError, ValueError) as error:
            return Agreement(
                agreed=False,
                number=number,
                reason=f"cannot read the checkpoint {files[number]}: {error}",
            )
    if len(set(digests.values())) > 1:
        held = ", ".join(f"{name} {digest[:12]}" for name, digest in digests.items())
        return Agreement(
            agreed=False, number=number, reason=f"the anchors of round {number} differ: {held}"
        )
    return Agreement(
        agreed=True,
        number=number,
        reason=f"all {len(homes)} hold the same {_size(kept[0][number])} anchor at round {number}",
    )


def anchor_digest(file: Path) -> str:
    """SHA-256 of the anchor in a checkpoint file: its type, its shape and its bytes.

    Raises `ValueError` for a file that is not a checkpoint.
    """
    with file.open("rb") as stream:
        header = _header(stream.read(8), stream)
        place = header.get(ANCHOR)
        if not isinstance(place, dict) or not isinstance(place.get("data_offsets"), list):
            raise ValueError(f"it has no tensor {ANCHOR!r}")
        start, stop = (int(offset) for offset in place["data_offsets"])
        hasher = hashlib.sha256(f"{place['dtype']} {place['shape']}".encode())
        stream.seek(start, 1)
        left = stop - start
        while left > 0:
            chunk = stream.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise ValueError(f"it ends {left} bytes before its anchor does")
            hasher.update(chunk)
            left -= len(chunk)
    return hasher.hexdigest()


def _header(length: bytes, stream: Any) -> dict[str, Any]:
    size = int.from_bytes(length, "little")
    if len(length) < 8 or size > MAX_HEADER_BYTES:
        raise ValueError("it has no safetensors header")
    try:
        return msgspec.json.decode(stream.read(size), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"its header is damaged: {error}") from None


def _checkpoints(home: Path, run: str) -> dict[int, Path]:
    """Return the home's checkpoint files of the run by number.

    Two certificates of one number are siblings; their newer file counts.
    """
    files = sorted(
        home.glob(f"runs/{run}/checkpoints/*.safetensors"), key=lambda file: file.stat().st_mtime_ns
    )
    return {
        int(number): file for file in files if (number := file.name.partition("-")[0]).isdigit()
    }


def _size(file: Path) -> str:
    with file.open("rb") as stream:
        start, stop = _header(stream.read(8), stream)[ANCHOR]["data_offsets"]
    return f"{(stop - start) / 1e6:.1f} MB"
