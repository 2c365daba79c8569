"""The bytes of a shard, their digest, and loading. Worker process only.

A shard is 8 bytes with the length of its header, the header, and the raw tensors in the order of
their names. Its digest is the root of a Merkle tree over chunks, so a part of a shard can be
checked alone. The tensors that a stage computes with are made from the bytes that were hashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import torch

from daemon.device.stages.weights.source import WeightSource, shard_shapes, unusable
from protocol.digest import Digest, leaf_digest, merkle_root

# A chunk of a transfer: 0.02 s at 100 Mbit/s, and a proof of 10 digests for a shard of 256 MB.
CHUNK_BYTES = 1 << 18
_LENGTH_BYTES = 8

Tensors = dict[str, torch.Tensor]


def load_shard(
    source: WeightSource, shard: int, device: torch.device, expected: Digest | None = None
) -> tuple[Tensors, Digest]:
    """Load the tensors of a shard as float32, and return them with the shard's digest.

    Raises:
        UserError: "MODEL" for tensors that are missing or have another shape, "DIGEST" where the
            shard is not the `expected` one.
    """
    shapes = shard_shapes(source.architecture, shard)
    raw = {name: source.raw(shard, name) for name in sorted(shapes)}
    header = msgspec.msgpack.encode([(name, one.dtype, one.shape) for name, one in raw.items()])
    parts = [
        np.frombuffer(len(header).to_bytes(_LENGTH_BYTES, "little") + header, np.uint8),
        *(one.data for one in raw.values()),
    ]
    found = merkle_root([leaf_digest(chunk) for chunk in _chunks(parts)])
    if expected is not None and found != expected:
        raise unusable(
            f"of shard {shard}",
            f"its digest is {found.hex()[:12]}, and the model's manifest says"
            f" {expected.hex()[:12]}",
            "fetch the model again",
        )
    tensors: Tensors = {}
    for name, one in raw.items():
        tensor = source.decoded(shard, name, one)
        if tuple(tensor.shape) != shapes[name]:
            raise unusable(
                f"of shard {shard}",
                f"its tensor {name} has shape {tuple(tensor.shape)}, and the configuration says"
                f" {shapes[name]}",
            )
        # A copy: the library's memory is aligned to a cache line, a mapped file is not, and the
        # kernels of a matrix product can depend on that.
        tensors[name] = tensor.to(device, torch.float32, copy=True)
    return tensors, found


def shard_digests(source: WeightSource, shards: Iterable[int]) -> tuple[Digest, ...]:
    """Return the digests of shards, and keep none of their tensors."""
    cpu = torch.device("cpu")
    return tuple(load_shard(source, shard, cpu)[1] for shard in shards)


def _chunks(parts: list[np.ndarray]) -> Iterator[bytes]:
    """Cut the concatenation of the parts into chunks. The last chunk may be shorter."""
    waiting = bytearray()
    for part in parts:
        view = memoryview(part).cast("B")
        while len(view):
            taken = min(len(view), CHUNK_BYTES - len(waiting))
            waiting += view[:taken]
            view = view[taken:]
            if len(waiting) == CHUNK_BYTES:
                yield bytes(waiting)
                waiting.clear()
    if waiting:
        yield bytes(waiting)
