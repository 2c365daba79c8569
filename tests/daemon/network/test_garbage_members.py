"""A connected peer that sends nonsense changes counters and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError

from daemon.network.libp2p.connection import MAX_BUFFERED_BYTES
from daemon.network.libp2p.control_stream import ControlStream
from protocol.errors import Unreachable
from protocol.ports.byte_stream import ByteStream
from tests.daemon.network.nodes import until_linked
from tests.daemon.network.pair import Pair

pytestmark = pytest.mark.real

TIMEOUT_S = 60.0


LIBP2P = {
    "gossip": "/meshsub/1.1.0",
    "dht": "/hypergpu/kad/1.0.0",
    "peers": "/hypergpu/peers/1",
    "identify": "/ipfs/id/1.0.0",
    "push": "/ipfs/id/push/1.0.0",
    "ping": "/ipfs/ping/1.0.0",
}


@pytest.mark.parametrize("service", LIBP2P)
@pytest.mark.parametrize("data", ["framed", "huge", "random", "frames of nothing"])
async def test_nonsense_from_a_member_on_every_libp2p_service(
    service: str, data: str, tmp_path: Path
) -> None:
    pair = Pair(tmp_path)
    nonsense = {
        "framed": b"\x40" + random.Random(6).randbytes(64),
        # This announces 4 GB.
        "huge": b"\xff\xff\xff\xff\x0f" + bytes(100_000),
        "random": random.Random(7).randbytes(300_000),
        "frames of nothing": bytes(10_000),
    }[data]
    with trio.fail_after(TIMEOUT_S):
        async with pair.running():
            stream = await pair.other.open_stream(pair.target.peer, LIBP2P[service])
            try:
                # Some services read everything and wait for more.
                with trio.move_on_after(1):
                    await stream.send_all(nonsense)
                    await stream.send_eof()
                    while await stream.receive_some(65_536):
                        pass
            except Unreachable:
                pass
            await stream.aclose()
            await pair.check_alive()


async def test_the_public_ipfs_dht_is_not_served(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with trio.fail_after(TIMEOUT_S):
        async with pair.running():
            for foreign in ("/ipfs/kad/1.0.0", "/floodsub/1.0.0", "/hypergpu/test/unknown/1"):
                with pytest.raises(Unreachable):
                    await pair.other.open_stream(pair.target.peer, foreign)
            await pair.until_refused("unknown_kind", 3)
            await pair.check_alive()


async def test_a_member_that_ignores_its_window_is_cut_off(tmp_path: Path) -> None:
    pair = Pair(tmp_path)

    async def deaf(stream: ByteStream) -> None:
        await trio.sleep_forever()

    pair.target.serve("/hypergpu/test/deaf/1", deaf)
    with trio.fail_after(TIMEOUT_S):
        async with pair.running():
            changes = pair.target.changes()
            assert (await anext(changes)).up
            stream = await pair.other.open_stream(pair.target.peer, "/hypergpu/test/deaf/1")
            assert isinstance(stream, ControlStream)
            stream._muxed.send_window = 1 << 30
            with pytest.raises(Unreachable):
                await stream.send_all(bytes(2 * MAX_BUFFERED_BYTES))
            lost = await anext(changes)
            assert not lost.up
            assert "unread" in lost.reason
            # The member may come back.
            assert (await anext(changes)).up
            await pair.check_alive()


@pytest.mark.parametrize("seed", range(3))
async def test_nonsense_inside_the_encrypted_connection(seed: int, tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    with trio.fail_after(TIMEOUT_S):
        async with pair.running():
            (connection,) = pair.other._connections.connections()
            for _ in range(4):
                try:
                    await connection.secured_conn.write(random.Random(seed).randbytes(60_000))
                except ConnectionClosedError:
                    break
            changes = pair.target.changes()
            assert (await anext(changes)).up
            # The connection ends when it no longer answers, at the latest.
            assert not (await anext(changes)).up
            assert (await anext(changes)).up
            await until_linked(pair.other, 1)
            await pair.check_alive()
