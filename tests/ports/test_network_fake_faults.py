"""Faults of the fake network: partitions, pauses, kills and loss."""

from __future__ import annotations

import pytest
import trio

from protocol.errors import Unreachable
from protocol.ports.network import Network
from simulator.fakes.link import LinkModel
from tests.ports.fake_swarm import started, world
from tests.ports.network_kit import (
    ECHO,
    HOLD,
    TOPIC,
    Handlers,
    ask,
    eventually,
    pattern,
    receive_all,
)

pytestmark = pytest.mark.virtual_time


async def test_short_partition_only_delays() -> None:
    swarm = world()
    handlers = Handlers()
    async with started(swarm, 2, handlers.prepare) as (here, there), trio.open_nursery() as nursery:
        stream = await here.open_stream(there.peer, ECHO)
        swarm.partition([here.peer])
        nursery.start_soon(stream.send_all, b"are you there")
        with trio.move_on_after(5.0) as waiting:
            await stream.receive_some(100)
        assert waiting.cancelled_caught
        swarm.heal()
        assert await stream.receive_some(100) == b"are you there"
        assert [link.peer for link in here.links()] == [there.peer]


async def test_order_survives_a_partition() -> None:
    swarm = world(latency_s=0.2, jitter_s=0.1)
    handlers = Handlers()
    async with started(swarm, 2, handlers.prepare) as (here, there), trio.open_nursery() as nursery:
        stream = await here.open_stream(there.peer, ECHO)
        data = pattern(3_000_000)[:3_000_000]

        async def disturb() -> None:
            for _ in range(5):
                swarm.partition([here.peer])
                await trio.sleep(0.15)
                swarm.heal()
                await trio.sleep(0.1)

        nursery.start_soon(disturb)
        assert await ask(stream, data) == data


async def test_long_partition_loses_links_on_both_sides_and_heals() -> None:
    swarm = world()
    handlers = Handlers()
    async with started(swarm, 6, handlers.prepare) as networks:
        stream = await networks[0].open_stream(networks[5].peer, HOLD)
        left, right = {n.peer for n in networks[:3]}, {n.peer for n in networks[3:]}
        swarm.partition(left, right)
        with trio.fail_after(15.0):
            for network in networks:
                mine = (left if network.peer in left else right) - {network.peer}
                await eventually(
                    lambda network=network, mine=mine: (
                        {link.peer for link in network.links()} == mine
                    )
                )
            with pytest.raises(Unreachable):
                await receive_all(stream)
        with pytest.raises(Unreachable):
            await networks[0].open_stream(networks[5].peer, ECHO)
        await networks[0].provide(bytes(32))
        assert await networks[4].find_providers(bytes(32)) == []
        swarm.heal()
        with trio.fail_after(5.0):
            await eventually(lambda: all(len(network.links()) == 5 for network in networks))
        assert await networks[4].find_providers(bytes(32)) == [networks[0].peer]


async def test_paused_node_is_missed_and_comes_back() -> None:
    swarm = world()
    handlers = Handlers()
    async with started(swarm, 3, handlers.prepare) as networks:
        sleeper = networks[2]
        changes = networks[0].changes()
        swarm.pause(sleeper.peer)
        with trio.fail_after(15.0):
            async for change in changes:
                if not change.up:
                    assert change.peer == sleeper.peer
                    break
        assert len(sleeper.links()) > 0, "a stopped process notices nothing"
        swarm.resume(sleeper.peer)
        with trio.fail_after(5.0):
            async for change in changes:
                if change.up:
                    assert change.peer == sleeper.peer
                    break


async def test_short_pause_loses_nothing() -> None:
    swarm = world()
    handlers = Handlers()
    async with started(swarm, 2, handlers.prepare) as (here, there):
        stream = await here.open_stream(there.peer, ECHO)
        swarm.pause(there.peer)
        await stream.send_all(b"wake up")
        with trio.move_on_after(8.0):
            await stream.receive_some(10)
        swarm.resume(there.peer)
        assert await stream.receive_some(10) == b"wake up"


async def test_killed_node_ends_and_its_next_life_is_the_same_peer() -> None:
    swarm = world()
    handlers = Handlers()
    async with started(swarm, 3, handlers.prepare) as networks:
        endpoint = networks[2].endpoint
        swarm.kill(endpoint.peer)
        again = swarm.network(bytes([2]) * 32)
        assert again.endpoint == endpoint
        Handlers().prepare(again, 2)
        async with again.running():
            with trio.fail_after(5.0):
                await eventually(lambda: len(again.links()) == 2)
            stream = await networks[0].open_stream(endpoint.peer, ECHO)
            assert await ask(stream, b"back") == b"back"


async def test_kill_cancels_what_runs_inside() -> None:
    swarm = world()
    async with swarm.running():
        network = swarm.network(bytes(32))
        with trio.fail_after(1.0):
            async with network.running():
                swarm.kill(network.peer)
                await trio.sleep_forever()


async def test_one_path_can_be_slowed() -> None:
    swarm = world(latency_s=0.01)
    handlers = Handlers()
    async with started(swarm, 3, handlers.prepare) as (here, there, other):
        swarm.set_link(here.peer, there.peer, LinkModel(latency_s=0.5))
        start = trio.current_time()
        slow = await here.open_stream(there.peer, ECHO)
        assert await ask(slow, b"x") == b"x"
        between = trio.current_time()
        fast = await here.open_stream(other.peer, ECHO)
        assert await ask(fast, b"x") == b"x"
        assert between - start >= 2.0
        assert trio.current_time() - between <= 0.1
        assert {link.peer: link.rtt_s for link in here.links()} == {
            there.peer: pytest.approx(1.0),
            other.peer: pytest.approx(0.02),
        }


async def test_lost_gossip_is_lost_and_streams_only_wait() -> None:
    handlers = Handlers()
    async with started(world(loss=0.5), 2, handlers.prepare) as (here, there):
        for number in range(100):
            # One after the other on one connection: a retransmission delays those behind it.
            await here.publish(TOPIC, b"%d" % number)
        await trio.sleep(60.0)
        assert 20 < len(handlers.offered) < 80
        stream = await here.open_stream(there.peer, ECHO)
        start = trio.current_time()
        data = pattern(500_000)[:500_000]
        assert await ask(stream, data) == data
        assert trio.current_time() - start > 0.2


async def test_gossip_floods_a_swarm_that_is_not_fully_linked() -> None:
    heard = 0
    signers = set()

    def prepare(network: Network, _index: int) -> None:
        def accept(signer: str, _data: bytes) -> bool:
            nonlocal heard
            heard += 1
            signers.add(signer)
            return True

        network.subscribe(TOPIC, accept)

    async with started(world(), 60, prepare) as networks:
        assert all(len(network.links()) < 59 for network in networks)
        await networks[0].publish(TOPIC, b"hello")
        await trio.sleep(2.0)
    assert heard == 59
    assert signers == {networks[0].peer}
