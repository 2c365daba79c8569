"""Gives shards of a model to members that do not have it.

A stage computes with tensors, and its files may have several formats. So the first member that asks
makes the stage's node write the shards to files of the home, once, in a process of its own. They
take as much disk as the layers. Later members find them, also at members that fetched them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.reply_limiter import ReplyLimiter
from protocol.digest import Digest, leaves_of
from protocol.errors import UserError
from protocol.inference.model import SHARD_CHUNK_BYTES, ModelManifest
from protocol.inference.shard_transfer import (
    MAX_REQUEST_BYTES,
    AskChunks,
    AskLeaves,
    PrepareShards,
    ShardsReply,
    ShardsRequest,
    decode_shards_request,
)
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from protocol.ports.offload import Offload

WEIGHTS_PROTOCOL = "/hypergpu/inference/weights/1"
SERVED_AT_ONCE, SERVED_TO_PEER = 4, 2
"""Each stream reads at most 4 MiB into memory."""

SILENT_S = 60.0
"""How long a stream may wait for its next request, or for its reader."""

Export = Callable[[Sequence[str], Path], Awaitable[None]]
"""Writes the shards with these names into a folder, under their digests. Raises `UserError`."""

_log = logging.getLogger(__name__)


class WeightServer:
    """Answers requests for the shards of one model. Satisfied by files in one folder."""

    def __init__(
        self,
        network: Network,
        manifest: ModelManifest,
        folder: Path,
        export: Export,
        offload: Offload,
    ) -> None:
        """Register the protocol on a network that has not started."""
        self._folder, self._export, self._offload = folder, export, offload
        self._names = {shard.digest: shard.name for shard in manifest.shards}
        # Shards that could not be written; a stage with some layers has no others.
        self._absent: set[Digest] = set()
        self._wanted: set[Digest] = set()
        # What is being written now.
        self._under_way: set[Digest] = set()
        self._asked = trio.Event()
        self._leaves: dict[Digest, bytes] = {}
        self._limiter = ReplyLimiter(SERVED_TO_PEER, SERVED_AT_ONCE, network.source_of)
        network.serve(WEIGHTS_PROTOCOL, self._serve)

    async def run(self) -> None:
        """Write the shards that members want, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            wanted, self._wanted = self._wanted, set()
            self._under_way = wanted
            names = [self._names[digest] for digest in sorted(wanted)]
            try:
                await self._export(names, self._folder)
            except UserError as error:
                _log.warning("Shards for a member were not written: %s %s", error.what, error.why)
                self._absent |= {one for one in wanted if not (self._folder / one.hex()).is_file()}
            self._under_way = set()

    async def _serve(self, stream: ByteStream) -> None:
        async with self._limiter.slot(stream.peer):
            reader = FrameReader(stream)
            while True:
                with trio.move_on_after(SILENT_S) as silent:
                    data = await reader.next_frame(MAX_REQUEST_BYTES)
                    if data is None:
                        return
                    reply = await self._answer(decode_shards_request(data))
                    await stream.send_all(frame(msgspec.msgpack.encode(reply)))
                if silent.cancelled_caught:
                    return

    async def _answer(self, request: ShardsRequest) -> ShardsReply:
        if isinstance(request, PrepareShards):
            return self._prepare(request)
        path = self._folder / request.shard.hex()
        if request.shard not in self._names or not path.is_file():
            return ShardsReply(state="absent")
        try:
            if isinstance(request, AskLeaves):
                return ShardsReply(state="ready", data=await self._part_of_tree(path, request))
            return ShardsReply(
                state="ready", data=await self._offload(partial(_part, path, request))
            )
        except OSError as error:
            _log.warning("The shard %s cannot be read: %s", path, error)
            return ShardsReply(state="absent")

    def _prepare(self, request: PrepareShards) -> ShardsReply:
        if any(one not in self._names or one in self._absent for one in request.shards):
            return ShardsReply(state="absent")
        missing = {one for one in request.shards if not (self._folder / one.hex()).is_file()}
        if not missing:
            return ShardsReply(state="ready")
        if fresh := missing - self._under_way:
            self._wanted |= fresh
            self._asked.set()
        return ShardsReply(state="preparing")

    async def _part_of_tree(self, path: Path, request: AskLeaves) -> bytes:
        """Return leaves of a shard. The last shard's tree is kept: it is asked for in parts."""
        if request.shard not in self._leaves:
            made = await self._offload(partial(_leaves, path))
            self._leaves = {request.shard: made}
        start = request.first * 32
        return self._leaves[request.shard][start : start + request.count * 32]


def _part(path: Path, request: AskChunks) -> bytes:
    with path.open("rb") as stream:
        stream.seek(request.first * SHARD_CHUNK_BYTES)
        return stream.read(request.count * SHARD_CHUNK_BYTES)


def _leaves(path: Path) -> bytes:
    """Return the leaves of a whole shard, read chunk by chunk."""
    found: list[Digest] = []
    with path.open("rb") as stream:
        while chunk := stream.read(SHARD_CHUNK_BYTES):
            found += leaves_of(chunk, SHARD_CHUNK_BYTES)
    return b"".join(found)
