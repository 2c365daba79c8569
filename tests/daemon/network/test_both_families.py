"""Real nodes over IPv6, over both families, and with one port for both planes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from tests.daemon.network.nodes import until_linked
from tests.ports.network_kit import ECHO, ask, echo


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6"),
]
TIMEOUT_S = 60.0


def node(home: Path, seed: int, settings: NetworkSettings) -> LibP2PNetwork:
    made = LibP2PNetwork(
        settings, seed.to_bytes(32, "big"), load_or_make(home / f"bulk-{seed}.pem", f"node {seed}")
    )
    made.serve(ECHO, echo)
    made.serve_bulk(ECHO, echo)
    return made


async def exchange(here: LibP2PNetwork, there: LibP2PNetwork) -> None:
    """Check that both planes carry bytes from `here` to `there`."""
    there.admit(here.endpoint)
    for stream in (
        await here.open_stream(there.peer, ECHO),
        await here.open_bulk(there.endpoint, ECHO),
    ):
        assert await ask(stream, b"x" * 100_000) == b"x" * 100_000
        await stream.aclose()


async def test_two_nodes_of_ipv6_alone_use_both_planes(tmp_path: Path) -> None:
    first = node(tmp_path, 1, NetworkSettings(listen_host="::1"))
    with trio.fail_after(TIMEOUT_S):
        async with first.running():
            assert first.addresses[0].startswith("/ip6/::1/tcp/")
            second = node(tmp_path, 2, NetworkSettings(listen_host="::1", join=first.addresses))
            async with second.running():
                await until_linked(first, 1)
                await until_linked(second, 1)
                assert second.links()[0].address.startswith("/ip6/::1/")
                await exchange(second, first)
                await exchange(first, second)
                assert second.path_to(first.peer).kind == "direct"


async def test_a_node_of_both_families_meets_one_of_each(tmp_path: Path) -> None:
    both = node(tmp_path, 1, NetworkSettings(listen_host="::"))
    with trio.fail_after(TIMEOUT_S):
        async with both.running():
            four = node(
                tmp_path,
                2,
                NetworkSettings(
                    listen_host="127.0.0.1",
                    join=(f"/ip4/127.0.0.1/tcp/{both.port}/p2p/{both.peer}",),
                ),
            )
            six = node(
                tmp_path,
                3,
                NetworkSettings(
                    listen_host="::1", join=(f"/ip6/::1/tcp/{both.port}/p2p/{both.peer}",)
                ),
            )
            async with four.running(), six.running():
                await until_linked(both, 2)
                hosts = {link.address.split("/")[2] for link in both.links()}
                assert hosts == {"127.0.0.1", "::1"}, "no host is written as ::ffff:127.0.0.1"
                await exchange(four, both)
                await exchange(six, both)


async def test_one_port_carries_both_planes(tmp_path: Path) -> None:
    shared = node(tmp_path, 1, NetworkSettings(listen_host="127.0.0.1", one_port=True))
    with trio.fail_after(TIMEOUT_S):
        async with shared.running():
            assert shared.endpoint.port == shared.port
            other = node(tmp_path, 2, NetworkSettings(listen_host="::1", join=shared.addresses))
            async with other.running():
                await until_linked(shared, 1)
                await exchange(other, shared)
                assert other.path_to(shared.peer).kind == "direct"


@pytest.mark.alone
async def test_connections_that_say_nothing_do_not_close_the_shared_port(tmp_path: Path) -> None:
    shared = node(tmp_path, 1, NetworkSettings(listen_host="127.0.0.1", one_port=True))
    with trio.fail_after(TIMEOUT_S):
        async with shared.running():
            silent = [await trio.open_tcp_stream("127.0.0.1", shared.port) for _ in range(200)]
            other = node(tmp_path, 2, NetworkSettings(listen_host="::1", join=shared.addresses))
            async with other.running():
                await until_linked(shared, 1)
                await exchange(other, shared)
            for stream in silent:
                await stream.aclose()
