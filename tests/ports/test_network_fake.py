"""The fake network passes the suite of `Network` in virtual time, and shares its bandwidth."""

from __future__ import annotations

import pytest
import trio

from simulator.fakes.link import LinkModel
from simulator.fakes.network import FakeNetwork
from tests.ports.fake_swarm import factory, started, world
from tests.ports.network_kit import (
    HOLD,
    Handlers,
    SwarmFactory,
    receive_all,
)
from tests.ports.network_suite import NetworkSuite

pytestmark = pytest.mark.virtual_time


class TestGoodLinks(NetworkSuite):
    @pytest.fixture
    def make_swarm(self) -> SwarmFactory:
        return factory(LinkModel())


class TestBadLinks(NetworkSuite):
    """Half a second there and back, and 8 Mbit/s."""

    @pytest.fixture
    def make_swarm(self) -> SwarmFactory:
        return factory(LinkModel(latency_s=0.25, jitter_s=0.05, bandwidth_bps=8e6, loss=0.0))


async def test_bytes_take_the_time_of_bandwidth_and_latency() -> None:
    handlers = Handlers()
    async with started(world(latency_s=0.05, bandwidth_bps=8e6), 2, handlers.prepare) as (
        here,
        there,
    ):
        there.admit(here.endpoint)
        stream = await here.open_bulk(there.endpoint, HOLD)
        start = trio.current_time()
        # Two seconds at 8 Mbit/s, within the window.
        await stream.send_all(bytes(2_000_000))
        await stream.send_eof()
        assert await receive_all(stream) == b"!"
        assert 2.1 <= trio.current_time() - start <= 2.2


async def test_streams_that_share_a_path_share_its_bandwidth() -> None:
    handlers = Handlers()
    ends: list[float] = []
    async with (
        started(world(latency_s=0.01, bandwidth_bps=8e6), 2, handlers.prepare) as (here, there),
        trio.open_nursery() as nursery,
    ):
        there.admit(here.endpoint)

        async def one() -> None:
            stream = await here.open_bulk(there.endpoint, HOLD)
            await stream.send_all(bytes(8_000_000))
            await stream.send_eof()
            await receive_all(stream)
            ends.append(trio.current_time())

        nursery.start_soon(one)
        nursery.start_soon(one)
    assert min(ends) > 0.85 * max(ends), f"one waited for the other: {ends}"


async def test_uplink_is_shared_by_all_paths_out_of_a_node() -> None:
    swarm = world(latency_s=0.01)
    handlers = Handlers()
    async with swarm.running(), trio.open_nursery() as nursery:
        home = swarm.network(b"h" * 32, uplink_bps=8e6)
        others = [swarm.network(bytes([index]) * 32) for index in range(4)]
        entered = []
        for index, network in enumerate([home, *others]):
            handlers.prepare(network, index)
            entered.append(network.running())
            await entered[-1].__aenter__()
        start = trio.current_time()

        async def give(other: FakeNetwork) -> None:
            other.admit(home.endpoint)
            stream = await home.open_bulk(other.endpoint, HOLD)
            await stream.send_all(bytes(1_000_000))
            await stream.send_eof()
            await receive_all(stream)
            await stream.aclose()

        async with trio.open_nursery() as giving:
            for other in others:
                giving.start_soon(give, other)
        assert 4.0 <= trio.current_time() - start <= 4.3
        for one in reversed(entered):
            await one.__aexit__(None, None, None)
        nursery.cancel_scope.cancel()
