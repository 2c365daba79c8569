"""Shards travel between members in checked chunks, in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
from msgspec.structs import replace

from daemon.services.inference import weight_fetch
from daemon.services.inference.weight_fetch import PART, WeightFetch
from daemon.services.inference.weight_server import WeightServer
from protocol.digest import leaves_of, merkle_root
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId
from protocol.inference.layers import LayerRange
from protocol.inference.model import SHARD_CHUNK_BYTES, ModelManifest, Shard
from protocol.inference.shard_transfer import (
    check_chunks,
    check_leaves,
    decode_shards_request,
    shards_for,
)
from protocol.ports.offload import inline
from simulator.fakes.link import LinkModel, same_link
from simulator.fakes.network import FakeNetwork
from simulator.fakes.stage import FAKE_MODEL
from simulator.fakes.swarm import FakeSwarm

# Twenty chunks and a part: two replies.
SIZES = {"embedding": 1000, "layer 0": 20 * SHARD_CHUNK_BYTES + 77, "layer 1": 5, "head": 300}
DATA = {name: np.random.default_rng(size).bytes(size) for name, size in SIZES.items()}
SHARDS = tuple(
    Shard(
        name=name,
        size_bytes=len(data),
        digest=merkle_root(leaves_of(data, SHARD_CHUNK_BYTES)),
        layers=(int(name[-1]),) if name.startswith("layer") else (),
    )
    for name, data in DATA.items()
)
MANIFEST: ModelManifest = replace(FAKE_MODEL, layers=2, shards=SHARDS)
BIG = SHARDS[1]


class Member:
    """A member with all shards, or with those that it is given."""

    def __init__(self, network: FakeNetwork, folder: Path, has: Sequence[str]) -> None:
        self.network, self.folder, self.has = network, folder, has
        self.exports: list[tuple[str, ...]] = []
        self.server = WeightServer(network, MANIFEST, folder, self._export, inline)

    async def _export(self, names: Sequence[str], folder: Path) -> None:
        self.exports.append(tuple(names))
        await trio.sleep(5)
        if set(names) - set(self.has):
            raise UserError("MODEL", "A shard is not here.")
        write_shards(folder, names)


def write_shards(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    for shard in SHARDS:
        if shard.name in names:
            (folder / shard.digest.hex()).write_bytes(DATA[shard.name])


class Members:
    """Some members, and one that fetches."""

    def __init__(self, swarm: FakeSwarm, nursery: trio.Nursery, root: Path) -> None:
        self._swarm, self._nursery, self._root = swarm, nursery, root
        self.members: list[Member] = []
        self.said: list[str] = []
        self.newcomer = swarm.network(b"newcomer" + bytes(24))
        nursery.start_soon(self._live, self.newcomer)

    def add(self, *has: str) -> Member:
        number = len(self.members) + 1
        network = self._swarm.network(number.to_bytes(32, "big"))
        member = Member(network, self._root / f"member-{number}", has or tuple(SIZES))
        self.members.append(member)
        self._nursery.start_soon(self._live, network)
        self._nursery.start_soon(member.server.run)
        return member

    async def _live(self, network: FakeNetwork) -> None:
        async with network.running():
            await trio.sleep_forever()

    def holders(self) -> list[PeerId]:
        return [member.network.peer for member in self.members]

    async def fetch(self, *names: str) -> Path:
        folder = self._root / "newcomer"
        made = WeightFetch(self.newcomer, self.holders, folder, inline, self.said.append)
        await made.run([shard for shard in SHARDS if shard.name in (names or SIZES)])
        return folder

    def check(self, folder: Path) -> None:
        for shard in SHARDS:
            assert (folder / shard.digest.hex()).read_bytes() == DATA[shard.name]
        assert not list(folder.glob(f"*{PART}"))


@asynccontextmanager
async def members(root: Path) -> AsyncIterator[Members]:
    swarm = FakeSwarm(random.Random(3), same_link(LinkModel(latency_s=0.01)))
    async with swarm.running(), trio.open_nursery() as nursery:
        made = Members(swarm, nursery, root)
        yield made
        nursery.cancel_scope.cancel()


async def test_newcomer_fetches_all_shards_and_the_holder_writes_them_once(tmp_path: Path) -> None:
    async with members(tmp_path) as world:
        holder = world.add()
        await trio.sleep(3)
        world.check(await world.fetch())
        assert sorted(holder.exports[0]) == sorted(SIZES)
        assert len(holder.exports) == 1
        await world.fetch()
        assert len(world.said) == 1, "nothing is missing the second time"


async def test_shards_of_two_holders_make_a_whole(tmp_path: Path) -> None:
    """Neither has all of them, as members that fetched their own layers."""
    async with members(tmp_path) as world:
        world.add("layer 0", "embedding")
        write_shards(tmp_path / "member-1", ["layer 0", "embedding"])
        world.add("layer 1", "head")
        write_shards(tmp_path / "member-2", ["layer 1", "head"])
        await trio.sleep(3)
        world.check(await world.fetch())


async def test_wrong_chunk_names_its_sender_and_comes_from_another(tmp_path: Path) -> None:
    async with members(tmp_path) as world:
        liar = world.add()
        await trio.sleep(3)
        # Its tree is right, and its chunks are not.
        leaves = b"".join(leaves_of(DATA["layer 0"], SHARD_CHUNK_BYTES))
        liar.server._leaves[BIG.digest] = leaves
        folder = tmp_path / "member-1"
        write_shards(folder, list(SIZES))
        spoiled = bytearray(DATA["layer 0"])
        spoiled[18 * SHARD_CHUNK_BYTES] ^= 1
        (folder / BIG.digest.hex()).write_bytes(spoiled)
        world.add()
        await trio.sleep(3)
        world.check(await world.fetch())
        assert any(liar.network.peer in line and "not those of" in line for line in world.said)


async def test_interrupted_fetch_goes_on_and_damage_on_disk_is_found(tmp_path: Path) -> None:
    async with members(tmp_path) as world:
        world.add()
        await trio.sleep(3)
        folder = tmp_path / "newcomer"
        folder.mkdir()
        part = bytearray(DATA["layer 0"][: 6 * SHARD_CHUNK_BYTES + 100])
        part[4 * SHARD_CHUNK_BYTES] ^= 1
        (folder / f"{BIG.digest.hex()}{PART}").write_bytes(part)
        world.check(await world.fetch())


async def test_fetch_without_holders_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_fetch, "IDLE_S", 20.0)
    async with members(tmp_path) as world:
        with pytest.raises(UserError, match="could not be fetched") as nobody:
            await world.fetch()
        assert nobody.value.why == "no member has them"
        world.add("layer 1")
        await trio.sleep(3)
        with pytest.raises(UserError) as absent:
            await world.fetch("head")
        assert "does not have them" in absent.value.why


def test_stage_needs_the_shards_of_its_layers() -> None:
    def names(first: int, stop: int, tied: bool) -> list[str]:
        layers = LayerRange(first=first, stop=stop)
        return [shard.name for shard in shards_for(MANIFEST, layers, tied=tied)]

    assert names(0, 1, True) == ["embedding", "layer 0"]
    assert names(1, 2, True) == ["embedding", "layer 1", "head"]
    assert names(1, 2, False) == ["layer 1", "head"]
    assert names(0, 2, False) == list(SIZES)


def test_wrong_leaves_and_chunks_are_refused() -> None:
    leaves = leaves_of(DATA["layer 0"], SHARD_CHUNK_BYTES)
    whole = b"".join(leaves)
    assert check_leaves(BIG, whole) == leaves
    for wrong in (whole[:-32], whole + bytes(32), bytes(len(whole)), b""):
        with pytest.raises(PeerFault):
            check_leaves(BIG, wrong)
    last = DATA["layer 0"][20 * SHARD_CHUNK_BYTES :]
    check_chunks(BIG, leaves, 20, last)
    for first, data in ((20, last[:-1]), (20, last + b"x"), (19, last), (0, b""), (21, last)):
        with pytest.raises(PeerFault):
            check_chunks(BIG, leaves, first, data)
    with pytest.raises(PeerFault, match="not a request"):
        decode_shards_request(b"\xff\x00")
