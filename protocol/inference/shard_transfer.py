"""How weights travel between members: shard by shard, in chunks that are checked one by one.

A shard's digest is the root of a Merkle tree over its chunks (`model.py`), so the leaves of the
tree are checked against the manifest, and each chunk against its leaf. A chunk may come from any
holder, and a wrong one names the peer that sent it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.digest import DIGEST_BYTES, Digest, leaves_of, merkle_root
from protocol.errors import PeerFault
from protocol.inference.layers import LayerRange
from protocol.inference.model import MAX_SHARDS, SHARD_CHUNK_BYTES, ModelManifest, Shard
from protocol.messages.base import UNREADABLE, Hash, Natural

CHUNKS_AT_ONCE = 16
"""The most chunks of one reply: 4 MiB, which take 0.3 s at 100 Mbit/s."""

MAX_SHARD_BYTES = 1 << 37
"""The largest shard that travels. The largest embedding that a stage loads has 64 GiB."""

LEAVES_AT_ONCE = 1 << 15
"""The most leaves of one reply: 1 MiB."""


class PrepareShards(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Names the shards that the asker wants, so that the holder can write them to files at once."""

    shards: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=MAX_SHARDS)]


class AskLeaves(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Asks for leaves of a shard's tree."""

    shard: Hash
    first: Natural
    count: Annotated[int, Meta(ge=1, le=LEAVES_AT_ONCE)]


class AskChunks(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True):
    """Asks for chunks of a shard."""

    shard: Hash
    first: Natural
    count: Annotated[int, Meta(ge=1, le=CHUNKS_AT_ONCE)]


class ShardsReply(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The answer to each request. `data` is empty unless the holder is "ready"."""

    # "preparing": ask again; "absent": the holder does not have the shards.
    state: Literal["ready", "preparing", "absent"]
    data: bytes = b""


ShardsRequest = PrepareShards | AskLeaves | AskChunks

MAX_REQUEST_BYTES = 64 + MAX_SHARDS * (DIGEST_BYTES + 2)
MAX_REPLY_BYTES = 64 + CHUNKS_AT_ONCE * SHARD_CHUNK_BYTES

_decoder: msgspec.msgpack.Decoder[ShardsRequest] = msgspec.msgpack.Decoder(ShardsRequest)


def decode_shards_request(data: bytes) -> ShardsRequest:
    """Decode a request. Raises `PeerFault("malformed")`."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a request for shards: {error}") from None


def chunk_count(size_bytes: int) -> int:
    """Return how many chunks a shard has."""
    return -(-size_bytes // SHARD_CHUNK_BYTES)


def shards_for(manifest: ModelManifest, layers: LayerRange, *, tied: bool) -> tuple[Shard, ...]:
    """Return the shards that a stage of these layers loads.

    The first stage needs the embedding, the last one the head, and the last one of a model with a
    tied output the embedding too. The outer shards name no layers; the embedding comes first.
    """
    outer = [shard for shard in manifest.shards if not shard.layers]
    is_last = layers.stop == manifest.layers
    wanted = {
        shard.digest
        for shard in manifest.shards
        if any(layers.first <= layer < layers.stop for layer in shard.layers)
    }
    if outer and (layers.first == 0 or (is_last and tied)):
        wanted.add(outer[0].digest)
    if is_last:
        wanted |= {shard.digest for shard in outer[1:]}
    return tuple(shard for shard in manifest.shards if shard.digest in wanted)


def check_leaves(shard: Shard, data: bytes) -> list[Digest]:
    """Return the leaves of a shard, checked against its digest.

    Raises:
        PeerFault: "malformed" for another number of leaves, "bad_proof" for others.
    """
    if len(data) != DIGEST_BYTES * chunk_count(shard.size_bytes):
        raise PeerFault("malformed", f"{len(data)} bytes of leaves of the shard {shard.name}")
    leaves = [data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)]
    if merkle_root(leaves) != shard.digest:
        raise PeerFault("bad_proof", f"the leaves are not those of the shard {shard.name}")
    return leaves


def check_chunks(shard: Shard, leaves: Sequence[Digest], first: int, data: bytes) -> None:
    """Check chunks from number `first` on against their leaves.

    Raises:
        PeerFault: "malformed" for a part of a chunk, "bad_proof" for other bytes.
    """
    stop = min(shard.size_bytes, first * SHARD_CHUNK_BYTES + len(data))
    whole = stop == shard.size_bytes or len(data) % SHARD_CHUNK_BYTES == 0
    if not data or not whole or stop - first * SHARD_CHUNK_BYTES != len(data):
        raise PeerFault("malformed", f"{len(data)} bytes of the shard {shard.name} at {first}")
    found = leaves_of(data, SHARD_CHUNK_BYTES)
    if found != list(leaves[first : first + len(found)]):
        raise PeerFault("bad_proof", f"chunks of the shard {shard.name} are not those of the model")
