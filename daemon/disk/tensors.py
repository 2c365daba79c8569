"""Reads and writes safetensors files with a digest (https://huggingface.co/docs/safetensors).

A file is the header's length in 8 bytes, a JSON header, and the raw tensors. The header's metadata
holds a digest over everything else. This module writes the format itself: the library can neither
sync a file nor say which step failed. It reads with the library, which proves that the files are
safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from protocol.digest import digest

Tensors = Mapping[str, npt.NDArray[np.generic]]
"""One-dimensional, float32 or uint8."""

# Our headers have about 500 bytes.
MAX_HEADER_BYTES = 1 << 20
_DTYPES = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class DamagedFile(Exception):
    """The file is not a whole record. The message is a predicate, such as "lacks 'anchor'"."""


class UnreadableFile(DamagedFile):
    """The system does not let this process read the file, which may be whole."""


def _raw(tensor: npt.NDArray[np.generic]) -> memoryview:
    """Return the tensor's bytes, without a copy where the tensor is contiguous."""
    return np.ascontiguousarray(tensor).data.cast("B")


def _digest_of(tensors: Tensors, metadata: Mapping[str, str]) -> str:
    words = msgspec.json.encode(
        sorted((key, value) for key, value in metadata.items() if key != "digest")
    )
    return digest(words, *(_raw(tensor) for _, tensor in sorted(tensors.items()))).hex()


def encode(tensors: Tensors, metadata: Mapping[str, str]) -> list[memoryview]:
    """Return the parts of the file, with the tensors in the order given.

    The parts are views: the tensors must not change until the parts are written.
    """
    header: dict[str, object] = {
        "__metadata__": {**metadata, "digest": _digest_of(tensors, metadata)}
    }
    parts, offset = [], 0
    for name, tensor in tensors.items():
        part = _raw(tensor)
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + part.nbytes],
        }
        offset += part.nbytes
        parts.append(part)
    text = msgspec.json.encode(header)
    # Tensors begin at a multiple of 8, as the format recommends.
    text += b" " * (-len(text) % 8)
    return [memoryview(len(text).to_bytes(8, "little") + text), *parts]


def read(path: Path) -> tuple[dict[str, npt.NDArray[np.generic]], dict[str, str]]:
    """Return the tensors and the metadata of a file.

    Uses pread instead of a memory map: a bad sector is then an exception, and not a signal that
    ends the process. Raises `DamagedFile` or `FileNotFoundError`.
    """
    try:
        # safetensors raises the same exception for an unreadable file and a damaged one.
        with path.open("rb") as first:
            first.read(1)
        with safe_open(path, framework="np", backend="pread") as file:
            metadata = file.metadata() or {}
            tensors = file.get_tensors()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableFile(f"cannot be read ({error.strerror or error})") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFile(f"cannot be read ({error})") from None
    if any(
        tensor.dtype not in _NAMES or tensor.ndim != 1 for tensor in tensors.values()
    ) or metadata.get("digest") != _digest_of(tensors, metadata):
        raise DamagedFile("does not match its digest")
    return tensors, metadata


def read_foreign(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the tensors of any safetensors file by name.

    Raises `DamagedFile`, also for types that numpy lacks, such as bfloat16.
    """
    try:
        with path.open("rb") as first:
            first.read(1)
        with safe_open(path, framework="np", backend="pread") as file:
            return dict(file.get_tensors())
    except OSError as error:
        raise UnreadableFile(f"cannot be read ({error.strerror or error})") from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"cannot be read as safetensors ({error})") from None


class _Place(msgspec.Struct, frozen=True):
    data_offsets: tuple[int, int]


def place_of(handle: int, names: tuple[str, ...]) -> tuple[int, int]:
    """Return the offsets at which the named tensors begin and end in the open file.

    The tensors must follow each other. Raises `DamagedFile`.
    """

    try:
        length = int.from_bytes(os.pread(handle, 8, 0), "little")
        if not 0 < length <= MAX_HEADER_BYTES:
            raise DamagedFile(f"has a header of {length} bytes")
        header = msgspec.json.decode(os.pread(handle, length, 8), type=dict[str, msgspec.Raw])
        places = [msgspec.json.decode(header[name], type=_Place).data_offsets for name in names]
    except (KeyError, msgspec.DecodeError) as error:
        raise DamagedFile(f"has a header that cannot be read ({error})") from None
    if any(first[1] != second[0] for first, second in pairwise(places)):
        raise DamagedFile("has tensors that do not follow each other")
    return 8 + length + places[0][0], 8 + length + places[-1][1]
