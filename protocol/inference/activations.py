"""How chunks travel: token ids as int32, activations as float32 or float16, little-endian.

float16 halves the bytes. Where it is too coarse for a model, the client asks for float32.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.ports.stage import Activations, Chunk, Tokens

WireType = Literal["float32", "float16"]

TOKEN_BYTES = 4
"""The bytes of a token id."""

_DTYPES: dict[WireType, np.dtype[np.generic]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
}


def encode_tokens(tokens: Tokens) -> bytes:
    """Return the bytes of token ids, shape (tokens,)."""
    return tokens.astype("<i4").tobytes()


def decode_tokens(data: bytes) -> Tokens:
    """Return the ids, int32 of shape (tokens,).

    Raises:
        PeerFault: "malformed" for a part of a token.
    """
    if len(data) % TOKEN_BYTES:
        raise PeerFault("malformed", f"{len(data)} bytes are no token ids")
    return np.frombuffer(data, "<i4").astype(np.int32)


def encode_activations(values: Activations, wire: WireType) -> bytes:
    """Return the bytes of activations, row after row. float16 rounds to the nearest."""
    # A value beyond float16 becomes infinite, which the next stage's check refuses.
    with np.errstate(over="ignore"):
        return values.astype(_DTYPES[wire]).tobytes()


def decode_activations(data: bytes, wire: WireType, width: int) -> Activations:
    """Return activations, float32 of shape (rows, width).

    Raises:
        PeerFault: "malformed" for a part of a row, or for values that are not finite.
    """
    row_bytes = width * _DTYPES[wire].itemsize
    if not data or len(data) % row_bytes:
        raise PeerFault("malformed", f"{len(data)} bytes are no rows of {row_bytes}")
    values = np.frombuffer(data, _DTYPES[wire]).astype(np.float32).reshape(-1, width)
    if not bool(np.isfinite(values).all()):
        raise PeerFault("malformed", "the activations are not finite")
    return values


def split_chunks(values: Chunk, shapes: tuple[int, ...]) -> list[Chunk]:
    """Split tokens or rows into chunks of so many each. The sum of `shapes` is the length."""
    stops = np.cumsum(shapes)
    return [values[stop - size : stop] for size, stop in zip(shapes, stops, strict=True)]


def split_data(data: bytes, shapes: tuple[int, ...]) -> list[bytes]:
    """Split the bytes of tokens or rows, which have one size, into those of chunks."""
    row_bytes = len(data) // sum(shapes)
    parts: list[bytes] = []
    offset = 0
    for size in shapes:
        parts.append(data[offset : offset + size * row_bytes])
        offset += size * row_bytes
    return parts


def chunk_digest(data: bytes) -> Digest:
    """Return the name of a chunk as it travels."""
    return digest(b"hypergpu/chunk/1\0", data)
