"""Fetches the shards of a stage from members that have them, in checked chunks.

A shard grows in a file beside its place, chunk by chunk, so a fetch that was interrupted goes on
where it was: the chunks that are there are checked again. A member that sends wrong bytes is asked
no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import trio

from daemon.disk.atomic import disk_full, free_bytes, make_private_directory, sync_directory
from daemon.services.inference.weight_server import WEIGHTS_PROTOCOL
from daemon.swarm.frames import FrameReader, decode_as, frame
from protocol.digest import DIGEST_BYTES, Digest
from protocol.errors import PeerFault, Unreachable, UserError
from protocol.identity import PeerId
from protocol.inference.model import SHARD_CHUNK_BYTES, Shard
from protocol.inference.shard_transfer import (
    CHUNKS_AT_ONCE,
    LEAVES_AT_ONCE,
    MAX_REPLY_BYTES,
    MAX_SHARD_BYTES,
    AskChunks,
    AskLeaves,
    PrepareShards,
    ShardsReply,
    ShardsRequest,
    check_chunks,
    check_leaves,
    chunk_count,
)
from protocol.ports.byte_stream import ByteStream
from protocol.ports.network import Network
from protocol.ports.offload import Offload

PART = ".part"
ANSWER_S = 30.0
"""The longest wait for one answer: 4 MiB at 1.2 Mbit/s."""

PREPARING_S = 600.0
"""The longest wait for a member that writes its shards to files: 60 GB at 100 MB/s."""

AGAIN_S = 1.0
IDLE_S = 120.0
"""A fetch without any new chunk for this long is given up."""


class _NotHere(Exception):
    """The member does not have the shards."""


class WeightFetch:
    """One fetch of some shards into a folder, under their digests."""

    def __init__(
        self,
        network: Network,
        holders: Callable[[], Sequence[PeerId]],
        folder: Path,
        offload: Offload,
        say: Callable[[str], None],
    ) -> None:
        """`holders` returns the members to ask, the best first; it may change."""
        self._network, self._holders, self._folder = network, holders, folder
        self._offload, self._say = offload, say
        self._refused: dict[PeerId, str] = {}
        self._last = "no member has them"
        self._progress_s = 0.0

    async def run(self, shards: Sequence[Shard]) -> None:
        """Fetch the shards that are not in the folder yet.

        Raises:
            UserError: "WEIGHTS" where no member gives them, or one is too large.
            DiskFull: the folder cannot hold them.
        """
        await self._offload(partial(make_private_directory, self._folder))
        missing = [shard for shard in shards if not (self._folder / shard.digest.hex()).is_file()]
        size_bytes = sum(shard.size_bytes for shard in missing)
        if too_large := [shard for shard in missing if shard.size_bytes > MAX_SHARD_BYTES]:
            raise self._failed(f"the shard {too_large[0].name} has {too_large[0].size_bytes} bytes")
        if free_bytes(self._folder) < size_bytes:
            raise disk_full(self._folder / "shards", size_bytes)
        if missing:
            self._say(f"Fetching {len(missing)} shards, {size_bytes / 1e6:.0f} MB.")
        self._progress_s = trio.current_time()
        while missing:
            peers = [peer for peer in self._holders() if peer not in self._refused]
            if not peers:
                await trio.sleep(AGAIN_S)
            for peer in peers:
                await self._fetch_from(peer, missing)
                missing = [
                    one for one in missing if not (self._folder / one.digest.hex()).is_file()
                ]
                if not missing:
                    return
            if trio.current_time() - self._progress_s > IDLE_S:
                raise self._failed(self._last)
            await trio.sleep(AGAIN_S)

    async def _fetch_from(self, peer: PeerId, shards: Sequence[Shard]) -> None:
        """Fetch as many shards as one member gives."""
        try:
            with trio.fail_after(ANSWER_S):
                stream = await self._network.open_stream(peer, WEIGHTS_PROTOCOL)
            try:
                holder = _Holder(stream)
                for shard in await self._held(holder, shards):
                    await self._fetch(holder, shard)
            finally:
                await stream.aclose()
        except (Unreachable, trio.TooSlowError) as error:
            self._last = str(error) or "a member did not answer in time"
        except _NotHere:
            self._last = "a member does not have them, or cannot write them to its disk"
        except PeerFault as fault:
            self._refused[peer] = self._last = str(fault)
            self._say(f"Refused weights of {peer}: {fault}")

    async def _held(self, holder: _Holder, shards: Sequence[Shard]) -> list[Shard]:
        """Return the shards that a member has, once it has written them to files."""
        try:
            # A member with the whole model writes them all at once.
            await holder.prepare([shard.digest for shard in shards])
            held = list(shards)
        except _NotHere:
            held = [shard for shard in shards if await holder.has(shard)]
        if not held:
            raise _NotHere
        self._progress_s = trio.current_time()
        return held

    async def _fetch(self, holder: _Holder, shard: Shard) -> None:
        """Fetch the rest of one shard."""
        leaves = check_leaves(shard, await holder.leaves(shard))
        part = self._folder / f"{shard.digest.hex()}{PART}"
        have = await self._offload(partial(_checked_chunks, part, shard, leaves))
        while have < len(leaves):
            data = await holder.ask(
                AskChunks(shard=shard.digest, first=have, count=CHUNKS_AT_ONCE), ANSWER_S
            )
            await self._offload(partial(_append, part, shard, leaves, have, data))
            have += chunk_count(len(data))
            self._progress_s = trio.current_time()
        await self._offload(partial(_finish, part, self._folder / shard.digest.hex()))

    def _failed(self, why: str) -> UserError:
        return UserError(
            "WEIGHTS",
            "The model's weights could not be fetched.",
            why=why,
            fix="try again: what came stays; or name another stage with --join",
        )


class _Holder:
    """One stream to a member."""

    def __init__(self, stream: ByteStream) -> None:
        self._reader, self._stream = FrameReader(stream), stream

    async def prepare(self, shards: Sequence[Digest]) -> None:
        """Wait until the member has written the shards to files. Raises `_NotHere`."""
        with trio.fail_after(PREPARING_S):
            while (await self._reply(PrepareShards(shards=tuple(shards)))).state == "preparing":
                await trio.sleep(AGAIN_S)

    async def has(self, shard: Shard) -> bool:
        """Whether the member has a shard."""
        try:
            await self.prepare([shard.digest])
        except _NotHere:
            return False
        return True

    async def leaves(self, shard: Shard) -> bytes:
        """Return the leaves of a shard, unchecked. Raises `_NotHere`."""
        count, parts = chunk_count(shard.size_bytes), list[bytes]()
        for first in range(0, count, LEAVES_AT_ONCE):
            asked = AskLeaves(
                shard=shard.digest, first=first, count=min(LEAVES_AT_ONCE, count - first)
            )
            parts.append(await self.ask(asked, PREPARING_S))
        return b"".join(parts)[: count * DIGEST_BYTES]

    async def ask(self, request: ShardsRequest, limit_s: float) -> bytes:
        """Return the data of an answer. Raises `_NotHere` and `trio.TooSlowError`."""
        with trio.fail_after(limit_s):
            return (await self._reply(request)).data

    async def _reply(self, request: ShardsRequest) -> ShardsReply:
        await self._stream.send_all(frame(msgspec.msgpack.encode(request)))
        reply = decode_as(ShardsReply, await self._reader.expect_frame(MAX_REPLY_BYTES))
        if reply.state == "absent":
            raise _NotHere
        return reply


def _checked_chunks(part: Path, shard: Shard, leaves: Sequence[Digest]) -> int:
    """Count the whole, right chunks at the beginning of a file, and cut off the rest."""
    count = 0
    try:
        with part.open("r+b") as stream:
            while chunk := stream.read(SHARD_CHUNK_BYTES):
                try:
                    check_chunks(shard, leaves, count, chunk)
                except PeerFault:
                    break
                count += 1
            stream.truncate(min(shard.size_bytes, count * SHARD_CHUNK_BYTES))
    except FileNotFoundError:
        return 0
    return count


def _append(part: Path, shard: Shard, leaves: Sequence[Digest], first: int, data: bytes) -> None:
    """Check chunks and add them to a file. Raises `PeerFault` and `DiskFull`."""
    check_chunks(shard, leaves, first, data)
    try:
        with part.open("ab") as stream:
            stream.write(data)
    except OSError as error:
        raise disk_full(part, len(data), error) from error


def _finish(part: Path, place: Path) -> None:
    """Give a whole shard its name, durably. Raises `DiskFull`."""
    try:
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.rename(place)
        sync_directory(place.parent)
    except OSError as error:
        raise disk_full(place, 0, error) from error
