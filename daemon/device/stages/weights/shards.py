"""The bytes of a shard, their digest, and loading. Worker process only.

A shard is 8 bytes with the length of its header, the header, and the raw tensors in the order of
their names. Its digest is the root of a Merkle tree over chunks, so a part of a shard can be
checked alone. The tensors that a stage computes with are made from the bytes that were hashed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from daemon.device.stages.weights.source import (
    RawTensor,
    WeightSource,
    shard_count,
    shard_name,
    shard_shapes,
    unusable,
)
from protocol.digest import Digest, leaf_digest, merkle_root
from protocol.errors import UserError
from protocol.inference.model import SHARD_CHUNK_BYTES, Shard

_LENGTH_BYTES = 8
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The kinds of numbers that become float32 without a table of scales."""

MAX_DIMENSIONS = 8
MAX_HEADER_BYTES = 1 << 20
"""A header names some dozens of tensors, each in 60 bytes."""

Tensors = dict[str, torch.Tensor]


def load_shard(
    source: WeightSource, shard: int, device: torch.device, expected: Digest | None = None
) -> Tensors:
    """Load the tensors of a shard as float32.

    Raises:
        UserError: "MODEL" for tensors that are missing or have another shape, "DIGEST" where the
            shard is not the `expected` one. Without `expected`, no digest is computed.
    """
    shapes, called = (
        shard_shapes(source.architecture, shard),
        shard_name(source.architecture, shard),
    )
    raw = _raw_tensors(source, shard)
    found = _described(raw).digest if expected is not None else None
    if expected is not None and found is not None and found != expected:
        raise UserError(
            "DIGEST",
            f"The shard {called!r} is not the one of the model.",
            why=f"its digest is {found.hex()[:12]}, and the model's manifest says"
            f" {expected.hex()[:12]}",
            fix="get the model's files again",
            exit_code=2,
        )
    tensors: Tensors = {}
    for name, one in raw.items():
        tensor = source.decoded(shard, name, one)
        if tuple(tensor.shape) != shapes[name]:
            raise unusable(
                called,
                f"its tensor {name} has shape {tuple(tensor.shape)}, and the configuration says"
                f" {shapes[name]}",
            )
        # A copy: the library's memory is aligned to a cache line, a mapped file is not, and the
        # kernels of a matrix product can depend on that.
        tensors[name] = tensor.to(device, torch.float32, copy=True)
    return tensors


def describe_shards(source: WeightSource) -> tuple[Shard, ...]:
    """Read all shards of a model, and return their names, sizes and digests."""
    made = source.architecture
    described: list[Shard] = []
    for shard in range(shard_count(made)):
        found = _described(_raw_tensors(source, shard))
        described.append(
            Shard(
                name=shard_name(made, shard),
                size_bytes=found.size_bytes,
                digest=found.digest,
                layers=(shard - 1,) if 0 < shard <= made.layers else (),
            )
        )
    return tuple(described)


class _Described(msgspec.Struct, frozen=True, kw_only=True):
    digest: Digest
    size_bytes: int


def _raw_tensors(source: WeightSource, shard: int) -> dict[str, RawTensor]:
    names = sorted(shard_shapes(source.architecture, shard))
    return {name: source.raw(shard, name) for name in names}


def _described(raw: dict[str, RawTensor]) -> _Described:
    parts = _parts(raw)
    return _Described(
        digest=merkle_root([leaf_digest(chunk) for chunk in _chunks(parts)]),
        size_bytes=sum(len(part) for part in parts),
    )


def write_shard(source: WeightSource, shard: int, folder: Path) -> None:
    """Write a shard's bytes to a file that its digest names. An existing file stays.

    Raises `UserError("MODEL")` for a source without the shard, and `OSError`.
    """
    raw = _raw_tensors(source, shard)
    place = folder / _described(raw).digest.hex()
    if place.is_file():
        return
    draft = place.with_name(f"{place.name}.draft")
    with draft.open("wb") as stream:
        for part in _parts(raw):
            stream.write(part.data.cast("B"))
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(place)


def read_shard(path: Path) -> dict[str, RawTensor]:
    """Read the tensors of a shard's file by name. The file is mapped, not read.

    Raises `ValueError` for a file of another form, and `OSError`.
    """
    whole = np.memmap(path, np.uint8, "r")
    begin = _LENGTH_BYTES + int.from_bytes(whole[:_LENGTH_BYTES].tobytes(), "little")
    if begin > min(len(whole), _LENGTH_BYTES + MAX_HEADER_BYTES):
        raise ValueError(f"its header has {begin} bytes")
    header = whole[_LENGTH_BYTES:begin].tobytes()
    entries = msgspec.msgpack.decode(header, type=list[tuple[str, str, tuple[int, ...]]])
    sizes = []
    for _name, dtype, shape in entries:
        if dtype not in DTYPES or len(shape) > MAX_DIMENSIONS or any(side < 0 for side in shape):
            raise ValueError(f"it holds {dtype} of shape {shape}")
        sizes.append(DTYPES[dtype].itemsize * math.prod(shape))
    if begin + sum(sizes) != len(whole):
        raise ValueError(f"it has {len(whole)} bytes, and its header names {begin + sum(sizes)}")
    tensors: dict[str, RawTensor] = {}
    for (name, dtype, shape), size in zip(entries, sizes, strict=True):
        tensors[name] = RawTensor(dtype=dtype, shape=shape, data=whole[begin : begin + size])
        begin += size
    return tensors


def _parts(raw: dict[str, RawTensor]) -> list[npt.NDArray[np.uint8]]:
    header = msgspec.msgpack.encode([(name, one.dtype, one.shape) for name, one in raw.items()])
    head = np.frombuffer(len(header).to_bytes(_LENGTH_BYTES, "little") + header, np.uint8)
    return [head, *(one.data for one in raw.values())]


def _chunks(parts: Sequence[npt.NDArray[np.uint8]]) -> Iterator[bytes]:
    """Cut the concatenation of the parts into chunks. The last chunk may be shorter."""
    waiting = bytearray()
    for part in parts:
        view = part.data.cast("B")
        while len(view):
            taken = min(len(view), SHARD_CHUNK_BYTES - len(waiting))
            waiting += view[:taken]
            view = view[taken:]
            if len(waiting) == SHARD_CHUNK_BYTES:
                yield bytes(waiting)
                waiting.clear()
    if waiting:
        yield bytes(waiting)
