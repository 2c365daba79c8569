"""The real network: connections are made, measured, lost and replaced."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from daemon.network.addresses import parse_peer_address
from daemon.network.libp2p.connection import PING_INTERVAL_S
from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from protocol.errors import Unreachable, UserError
from protocol.identity import PeerId
from tests.daemon.network.node_processes import node_processes
from tests.daemon.network.nodes import control_port, make_node, until_linked

pytestmark = [pytest.mark.real, pytest.mark.alone]

RUN = b"r" * 32
TIMEOUT_S = 60.0
REPLACED_S = 5.0
SILENCE_NOTICED_S = 15.0
# The first ping leaves with the connection.
ANSWERED_S = 2 * PING_INTERVAL_S
# 4.5 s, and a busy machine.
YOUNG_SILENCE_NOTICED_S = 7.0


async def until_lost(node: LibP2PNetwork, peer: PeerId) -> str:
    """Wait until `peer` is lost. Returns the reason."""
    async for change in node.changes():
        if change.peer == peer and not change.up:
            return change.reason
    raise AssertionError


async def test_addresses_and_endpoint_say_where_a_node_listens(tmp_path: Path) -> None:
    node = LibP2PNetwork(
        NetworkSettings(), bytes(31) + b"\x01", load_or_make(tmp_path / "bulk.pem", "node")
    )
    with trio.fail_after(TIMEOUT_S):
        async with node.running():
            addresses = [parse_peer_address(address) for address in node.addresses]
            # A node that listens everywhere advertises loopback too.
            assert addresses[-1].host == "127.0.0.1"
            assert all(
                one.peer == node.peer and one.port == control_port(node) for one in addresses
            )
            assert node.endpoint.hosts == tuple(one.host for one in addresses)
            assert node.endpoint.port not in (0, control_port(node))


async def test_an_observer_has_no_bulk_listener(tmp_path: Path) -> None:
    node = make_node(tmp_path, 1, bulk=False)
    with trio.fail_after(TIMEOUT_S):
        async with node.running():
            assert (node.endpoint.port, node.endpoint.hosts) == (0, ())


async def test_a_taken_port_and_a_bad_join_address_are_user_errors(tmp_path: Path) -> None:
    certificate = load_or_make(tmp_path / "bulk.pem", "node")
    with pytest.raises(UserError, match="not an address to join"):
        LibP2PNetwork(NetworkSettings(join=("/ip4/127.0.0.1/tcp/1",)), bytes(32), certificate)
    first = make_node(tmp_path, 1)
    with trio.fail_after(TIMEOUT_S):
        async with first.running():
            settings = NetworkSettings(listen_host="127.0.0.1", listen_port=control_port(first))
            with pytest.raises(UserError, match="Cannot listen"):
                async with LibP2PNetwork(settings, bytes(31) + b"\x02", certificate).running():
                    pass


async def test_the_usual_port_is_used_where_it_is_free_and_another_where_not(
    tmp_path: Path,
) -> None:
    with trio.fail_after(TIMEOUT_S):
        async with make_node(tmp_path, 1).running():
            pass
        first = make_node(tmp_path, 1)
        async with first.running():
            usual = first.port
            assert usual == control_port(first)
            settings = NetworkSettings(listen_host="127.0.0.1", usual_port=usual)
            certificate = load_or_make(tmp_path / "bulk.pem", "node")
            async with LibP2PNetwork(settings, bytes(31) + b"\x02", certificate).running() as _:
                # The usual port is taken, and no error is raised.
                pass
        again = LibP2PNetwork(settings, bytes(31) + b"\x02", certificate)
        async with again.running():
            assert again.port == usual


async def test_members_are_those_of_the_run_now_and_a_moment_ago(tmp_path: Path) -> None:
    first, stranger = make_node(tmp_path, 1), make_node(tmp_path, 3)
    with trio.fail_after(TIMEOUT_S):
        async with first.running(), stranger.running():
            second = make_node(tmp_path, 2, first.addresses[0], stranger.addresses[0])
            async with second.running():
                await first.provide(RUN)
                await second.provide(RUN)
                await until_linked(second, 2)
                while not (first.members() and second.members()):
                    await trio.sleep(0.05)
                assert second.members() == first.addresses
                assert first.members() == second.addresses
            await until_lost(first, second.peer)
            assert first.members() == second.addresses, "it was connected a moment ago"


async def test_join_is_tried_until_the_peer_answers(tmp_path: Path) -> None:
    first = make_node(tmp_path, 1)
    with trio.fail_after(TIMEOUT_S):
        async with first.running():
            port = control_port(first)
            address = first.addresses[0]
        second = make_node(tmp_path, 2, address)
        async with second.running():
            with pytest.raises(Unreachable):
                await second.open_stream(first.peer, "/hypergpu/test/1")
            again = LibP2PNetwork(
                NetworkSettings(listen_host="127.0.0.1", listen_port=port),
                (1).to_bytes(32, "big"),
                load_or_make(tmp_path / "bulk-1.pem", ""),
            )
            async with again.running():
                await until_linked(second, 1)


async def test_a_connection_that_breaks_is_reported_at_once_and_made_again(tmp_path: Path) -> None:
    first = make_node(tmp_path, 1)
    with trio.fail_after(TIMEOUT_S):
        async with first.running():
            second = make_node(tmp_path, 2, *first.addresses)
            async with second.running():
                await until_linked(first, 1)
                await until_linked(second, 1)
                changes = second.changes()
                assert (await anext(changes)).up
                for connection in first._connections.connections():
                    await connection.cut("pulled")
                with trio.fail_after(REPLACED_S):
                    assert not (await anext(changes)).up
                    assert (await anext(changes)).up


async def test_a_process_that_is_stopped_or_killed_is_noticed(tmp_path: Path) -> None:
    first = make_node(tmp_path, 1)
    with trio.fail_after(TIMEOUT_S):
        async with first.running(), node_processes() as start:
            silent = await start(tmp_path, 2, *first.addresses)
            killed = await start(tmp_path, 3, *first.addresses)
            await silent.begin()
            await killed.begin()
            await until_linked(first, 2)
            killed.process.kill()
            with trio.fail_after(2):
                assert "closed" in await until_lost(first, killed.peer)
            silent.process.send_signal(signal.SIGSTOP)
            with trio.fail_after(SILENCE_NOTICED_S):
                assert "no sign of life" in await until_lost(first, silent.peer)
            silent.process.send_signal(signal.SIGCONT)
            # The silent node comes back by itself.
            await until_linked(first, 1)


async def test_silence_soon_after_connecting_is_noticed_as_early_as_later(tmp_path: Path) -> None:
    """A young connection once had the timeout of a node that is busy joining, which is 10 s."""
    first = make_node(tmp_path, 1)
    with trio.fail_after(TIMEOUT_S):
        async with first.running(), node_processes() as start:
            silent = await start(tmp_path, 2, *first.addresses)
            await silent.begin()
            await until_linked(first, 1)
            with trio.fail_after(ANSWERED_S):
                while first._connections.connections()[0].rtt_s is None:
                    await trio.sleep(0.005)
            assert not first._connections.connections()[0]._round_trips.trusted
            silent.process.send_signal(signal.SIGSTOP)
            with trio.fail_after(YOUNG_SILENCE_NOTICED_S):
                assert "no sign of life" in await until_lost(first, silent.peer)
