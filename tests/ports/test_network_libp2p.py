"""The real network passes the suite: several nodes in one process, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from protocol.ports.network import Network
from tests.ports.network_kit import Swarm, SwarmFactory
from tests.ports.network_suite import NetworkSuite

pytestmark = pytest.mark.real


def nothing(network: Network, index: int) -> None:
    """Register no handlers."""


class TestLibP2PNetwork(NetworkSuite):
    @pytest.fixture
    def make_swarm(self, tmp_path: Path) -> SwarmFactory:
        @asynccontextmanager
        async def make(
            count: int, prepare: Callable[[Network, int], None] = nothing
        ) -> AsyncIterator[Swarm]:
            networks: list[LibP2PNetwork] = []
            scopes: list[trio.CancelScope] = []
            ended: list[trio.Event] = []

            async def run(
                network: LibP2PNetwork,
                scope: trio.CancelScope,
                over: trio.Event,
                task_status: trio.TaskStatus[None],
            ) -> None:
                try:
                    with scope:
                        async with network.running():
                            task_status.started()
                            await trio.sleep_forever()
                finally:
                    over.set()

            async def kill(index: int) -> None:
                scopes[index].cancel()
                await ended[index].wait()

            async with trio.open_nursery() as nursery:
                for index in range(count):
                    join = networks[0].addresses[-1:] if networks else ()
                    settings = NetworkSettings(listen_host="127.0.0.1", join=join)
                    certificate = load_or_make(tmp_path / f"bulk-{index}.pem", f"node {index}")
                    network = LibP2PNetwork(settings, bytes([index + 1]) * 32, certificate)
                    prepare(network, index)
                    networks.append(network)
                    scopes.append(trio.CancelScope())
                    ended.append(trio.Event())
                    await nursery.start(run, network, scopes[index], ended[index])
                for network in networks:
                    changes = network.changes()
                    while len(network.links()) < count - 1:
                        await anext(changes)
                yield Swarm(networks, kill)
                nursery.cancel_scope.cancel()

        return make
