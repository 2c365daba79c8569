"""Records as safetensors files (https://huggingface.co/docs/safetensors): 8 bytes of header length,
a JSON header, the raw tensors.

Written by hand, because the library offers no way to fsync, to say which step failed, or to keep
its own drafts apart; read by the library, so that what is written here is what everybody else calls
safetensors. The header's metadata carries a digest over all the rest.
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

MAX_HEADER_BYTES = 1 << 20  # ours have about 500
_DTYPES = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class DamagedFile(Exception):
    """The file is not a whole record of ours; the message says what it is or does instead."""


class UnreadableFile(DamagedFile):
    """The system does not give the file's bytes: they may be whole, and come back with a permission
    or a medium.
    """


def _raw(tensor: npt.NDArray[np.generic]) -> memoryview:
    """The tensor's bytes, without a copy when it is contiguous."""
    return np.ascontiguousarray(tensor).data.cast("B")


def _digest_of(tensors: Tensors, metadata: Mapping[str, str]) -> str:
    words = msgspec.json.encode(
        sorted((key, value) for key, value in metadata.items() if key != "digest")
    )
    return digest(words, *(_raw(tensor) for _, tensor in sorted(tensors.items()))).hex()


def encode(tensors: Tensors, metadata: Mapping[str, str]) -> list[memoryview]:
    """The file's parts in order, tensors in the order given.

    They are views: the tensors must not change until they are written.
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
    """Tensors and metadata of a whole file.

    Raises `DamagedFile`, or `FileNotFoundError` where there is none.

    Reads with pread, not through a memory map: a bad sector is then an exception and not a dead
    process.
    """
    try:
        # Safetensors tells a file that is refused from a damaged one by its words alone.
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


class _Place(msgspec.Struct, frozen=True):
    data_offsets: tuple[int, int]


def place_of(handle: int, names: tuple[str, ...]) -> tuple[int, int]:
    """Where in the open file the named tensors, which must follow each other, begin and end.

    Raises `DamagedFile`.
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
