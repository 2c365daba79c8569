"""Nodes that keep the state of a certificate, and one that downloads it, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import numpy as np
import trio

from daemon.swarm.multi_peer_download import download_from
from daemon.swarm.state_download import KnownState, StateDownload
from daemon.swarm.state_transfer import StateServer, serve_state
from protocol.averaging.outer_step import state_leaves
from protocol.averaging.vector_layout import STATE_CHUNK_BYTES, Vector
from protocol.digest import Digest, merkle_root
from protocol.ports.disk_records import Checkpoint
from simulator.fakes.clock import run_virtual
from simulator.fakes.disk import KEPT, MemoryDisk
from simulator.fakes.medium import MemoryMedium
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm

RUN = b"r" * 32
# 6 chunks of each vector, the last one short.
PARAMETERS = 5 * STATE_CHUNK_BYTES // 4 + 100
SIZE = 8 * PARAMETERS
# One holder sends the whole state in 12 s.
UPLINK_BPS = 8.0 * SIZE / 12
TIP = b"t" * 32


def vector(seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(PARAMETERS, dtype=np.float32)


VALUE, MOMENTUM = vector(1), vector(2)
LEAVES = state_leaves(VALUE, MOMENTUM)


class Holder:
    """A node that keeps checkpoints and serves them."""

    def __init__(self, swarm: FakeSwarm, number: int, *, uplink_bps: float = UPLINK_BPS) -> None:
        self.network = swarm.network(bytes([number]) * 32, uplink_bps=uplink_bps)
        self.medium = MemoryMedium()
        self.disk = MemoryDisk(self.medium)
        self.leaves: dict[Digest, list[Digest]] = {}
        self.server = StateServer(self.disk, self.leaves.get, lambda: PARAMETERS)
        serve_state(self.network, self.server)

    async def keep(self, tip: Digest = TIP, number: int = 1, value: Vector = VALUE) -> None:
        await self.disk.save_checkpoint(
            Checkpoint(
                run=RUN,
                tip=tip,
                number=number,
                anchor=value,
                momentum=MOMENTUM,
                inner=np.zeros(0, np.float32),
            ),
            {kept for _, kept in await self.disk.checkpoints(RUN)},
        )
        self.leaves[tip] = state_leaves(value, MOMENTUM)
        while len(self.leaves) > KEPT:
            del self.leaves[next(iter(self.leaves))]


class Scenario:
    """A downloader and some holders, connected to each other."""

    def __init__(self, holders: int, *, downlink_bps: float = float("inf"), **more: float) -> None:
        self.swarm = FakeSwarm(random.Random(1))
        self.downloader: FakeNetwork = self.swarm.network(b"\0" * 32, downlink_bps=downlink_bps)
        self.holders = [Holder(self.swarm, number, **more) for number in range(1, holders + 1)]
        self.refused: list[str] = []
        self.download: StateDownload | None = None

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            async with self.swarm.running(), trio.open_nursery() as nursery:
                for network in (self.downloader, *(holder.network for holder in self.holders)):
                    await nursery.start(_live, network)
                for holder in self.holders:
                    await holder.keep()
                await trio.sleep(2.0)
                await story()
                nursery.cancel_scope.cancel()

        run_virtual(main)

    async def fetch(self, *known: KnownState, tip: Digest = TIP) -> tuple[str, float]:
        """Download a state. Returns why it failed, or nothing, and the seconds it took."""
        self.download = StateDownload(tip, merkle_root(LEAVES), PARAMETERS, known=lambda: known)
        began = trio.current_time()
        peers = [holder.network.peer for holder in self.holders]
        reason = await download_from(
            self.downloader,
            self.download,
            lambda: peers,
            lambda reason, _peer, _detail: self.refused.append(reason),
        )
        return reason, trio.current_time() - began

    def is_whole(self) -> bool:
        download = self.download
        return (
            download is not None
            and download.done
            and bool(np.all(download.value == VALUE) and np.all(download.momentum == MOMENTUM))
        )


async def _live(network: FakeNetwork, *, task_status: trio.TaskStatus[None]) -> None:
    async with network.running():
        task_status.started()
        await trio.sleep_forever()
