"""Two halves of a swarm that started apart become one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from tests.daemon.network.nodes import until_linked

pytestmark = pytest.mark.real

# A join address is tried every 10 s.
MET_S = 30.0
RUN = bytes(range(32))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make(home: Path, seed: int, join: tuple[str, ...] = (), port: int = 0) -> LibP2PNetwork:
    settings = NetworkSettings(listen_host="127.0.0.1", listen_port=port, join=join)
    certificate = load_or_make(home / f"bulk-{seed}.pem", f"node {seed}")
    return LibP2PNetwork(settings, seed.to_bytes(32, "big"), certificate)


async def test_two_halves_that_started_apart_find_each_other(tmp_path: Path) -> None:
    """The second half knows the first one's entry point, which did not run when it started."""
    port = free_port()
    entry = make(tmp_path, 1, port=port)
    address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{entry.peer}"
    with trio.fail_after(3 * MET_S):
        third = make(tmp_path, 3, join=(address,))
        async with third.running():
            fourth = make(tmp_path, 4, join=third.addresses[-1:])
            async with fourth.running():
                await until_linked(fourth, 1)
                # The first half comes up elsewhere, with members of its own.
                async with entry.running():
                    second = make(tmp_path, 2, join=entry.addresses[-1:])
                    async with second.running():
                        everybody = (entry, second, third, fourth)
                        for node in everybody:
                            await node.provide(RUN)
                        with trio.fail_after(MET_S):
                            for node in everybody:
                                await until_linked(node, 3)
