"""The made-up network passes the suite of `Network`, in virtual time, and breaks the way it is told
to.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from protocol.errors import Unreachable
from protocol.identity import Signer
from protocol.ports.network import Network
from simulator.fakes.clock import run_virtual
from simulator.fakes.link import LinkModel, same_link
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm
from tests.ports.network_suite import (
    ECHO,
    HOLD,
    TOPIC,
    Handlers,
    NetworkSuite,
    Swarm,
    SwarmFactory,
    ask,
    eventually,
    pattern,
    receive_all,
)

pytestmark = pytest.mark.virtual_time


@asynccontextmanager
async def started(
    swarm: FakeSwarm, count: int, prepare: Callable[[Network, int], None] = lambda *_: None
) -> AsyncIterator[list[FakeNetwork]]:
    """`count` networks of one swarm, linked to each other."""
    async with swarm.running(), trio.open_nursery() as nursery:
        networks = [swarm.network(bytes([index]) * 32) for index in range(count)]

        async def live(network: FakeNetwork) -> None:
            async with network.running():
                await trio.sleep_forever()

        for index, network in enumerate(networks):
            prepare(network, index)
            nursery.start_soon(live, network)
        while any(len(network.links()) < min(count - 1, 16) for network in networks):
            await trio.sleep(0.1)
        yield networks
        nursery.cancel_scope.cancel()


def factory(link: LinkModel) -> SwarmFactory:
    @asynccontextmanager
    async def make(
        count: int, prepare: Callable[[Network, int], None] = lambda *_: None
    ) -> AsyncIterator[Swarm]:
        world = FakeSwarm(random.Random(7), same_link(link))
        async with started(world, count, prepare) as networks:

            async def kill(index: int) -> None:
                world.kill(networks[index].peer)

            yield Swarm(networks, kill)

    return make


class TestGoodLinks(NetworkSuite):
    @pytest.fixture
    def make_swarm(self) -> SwarmFactory:
        return factory(LinkModel())


class TestBadLinks(NetworkSuite):
    """Half a second away, 8 Mbit/s, and a tenth of everything sent twice."""

    @pytest.fixture
    def make_swarm(self) -> SwarmFactory:
        return factory(LinkModel(latency_s=0.25, jitter_s=0.05, bandwidth_bps=8e6, loss=0.0))


def world(**link: float) -> FakeSwarm:
    return FakeSwarm(random.Random(1), same_link(LinkModel(**link)))


async def test_bytes_take_the_time_that_bandwidth_and_latency_say() -> None:
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
        assert len(sleeper.links()) > 0, "a stopped process has noticed nothing"
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


async def test_gossip_floods_a_swarm_where_not_everybody_is_linked() -> None:
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


faults = st.lists(
    st.tuples(
        st.sampled_from(["kill", "pause", "resume", "partition", "heal", "slow", "revive"]),
        st.integers(0, 5),
        st.floats(0.0, 8.0),
    ),
    max_size=12,
)


# Not shrunk: a story has a dozen steps at most, and the minutes that shrinking takes would hit the
# test's own time limit.
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(plan=faults, seed=st.integers(0, 1000))
def test_whatever_breaks_streams_end_in_order_or_unreachable_and_links_come_back(
    plan: list[tuple[str, int, float]], seed: int
) -> None:
    """Six nodes talk while anything happens: nobody reads what was not sent, nobody waits for ever,
    and afterwards all are linked again.
    """
    run_virtual(under_faults, plan, seed, seed=seed)


async def under_faults(plan: list[tuple[str, int, float]], seed: int) -> None:
    swarm = FakeSwarm(
        random.Random(seed),
        same_link(LinkModel(latency_s=0.05, jitter_s=0.05, bandwidth_bps=4e6, loss=0.05)),
    )
    secrets = [bytes([index]) * 32 for index in range(6)]
    peers = [Signer(secret).peer for secret in secrets]
    data = pattern(300_000)[:300_000]
    dead: set[int] = set()

    async def live(index: int) -> None:
        network = swarm.network(secrets[index])
        Handlers().prepare(network, index)
        chance = random.Random(index)
        async with network.running(), trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(talk, network, chance)

    async def talk(network: FakeNetwork, chance: random.Random) -> None:
        while True:
            await trio.sleep(chance.random())
            received = b""
            stream = None
            # A partition, a pause and a slow link one after the other; never for ever.
            with trio.fail_after(120.0):
                try:
                    other = swarm.nodes[
                        chance.choice([peer for peer in peers if peer != network.peer])
                    ]
                    other.admit(network.endpoint)
                    stream = await (
                        network.open_stream(other.peer, ECHO)
                        if chance.random() < 0.5
                        else network.open_bulk(other.endpoint, ECHO)
                    )
                    await stream.send_all(data[:100_000])
                    await stream.send_eof()
                    while piece := await stream.receive_some(10_000):
                        received += piece
                    assert received == data[:100_000], "an end that is not the end"
                except Unreachable:
                    assert data.startswith(received)
                finally:
                    if stream is not None:
                        await stream.aclose()

    with trio.fail_after(1000.0):
        async with swarm.running(), trio.open_nursery() as nursery:
            for index in range(6):
                nursery.start_soon(live, index)
            await trio.sleep(3.0)
            for what, index, delay in plan:
                if what == "revive" and index in dead:
                    dead.remove(index)
                    nursery.start_soon(live, index)
                elif what == "kill" and index not in dead:
                    dead.add(index)
                    swarm.kill(peers[index])
                elif what == "pause" and index not in dead:
                    swarm.pause(peers[index])
                elif what == "resume":
                    swarm.resume(peers[index])
                elif what == "partition":
                    swarm.partition(peers[: index + 1])
                elif what == "heal":
                    swarm.heal()
                elif what == "slow":
                    swarm.set_link(
                        peers[index], peers[index - 1], LinkModel(latency_s=1.0, bandwidth_bps=1e6)
                    )
                await trio.sleep(delay)
            swarm.heal()
            for index in range(6):
                swarm.resume(peers[index])
                swarm.set_link(peers[index], peers[index - 1], None)
            alive = [peer for index, peer in enumerate(peers) if index not in dead]
            with trio.fail_after(60.0):
                for peer in alive:
                    await eventually(
                        lambda peer=peer: (
                            {link.peer for link in swarm.nodes[peer].links()} == {*alive} - {peer}
                        )
                    )
            nursery.cancel_scope.cancel()


def story(seed: int) -> list[object]:
    """A noisy minute: what everybody received, when."""
    seen: list[object] = []

    async def main() -> None:
        handlers = Handlers()
        swarm = FakeSwarm(
            random.Random(seed), same_link(LinkModel(jitter_s=0.05, bandwidth_bps=5e6, loss=0.1))
        )
        async with started(swarm, 5, handlers.prepare) as networks, trio.open_nursery() as nursery:

            async def talk(index: int) -> None:
                for turn in range(5):
                    try:
                        stream = await networks[index].open_stream(
                            networks[(index + 1 + turn) % 5].peer, ECHO
                        )
                        answer = await ask(stream, pattern(50_000, turn)[:50_000])
                        await stream.aclose()
                        seen.append((trio.current_time(), index, len(answer)))
                    except* Unreachable as group:
                        seen.append((trio.current_time(), index, str(group.exceptions[0])))
                    await networks[index].publish(TOPIC, b"%d %d" % (index, turn))

            for index in range(5):
                nursery.start_soon(talk, index)
            await trio.sleep(0.3)
            swarm.kill(networks[4].peer)
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
        seen.extend(handlers.offered)

    run_virtual(main, seed=seed)
    return seen


def test_same_seed_same_story() -> None:
    assert story(3) == story(3)
    assert story(3) != story(4)


def test_deliveries_are_cheap() -> None:
    """A budget, not a benchmark: thousands of nodes are simulated on it.

    The bound leaves room for a busy machine.
    """
    deliveries = 0

    async def main() -> None:
        nonlocal deliveries

        def prepare(network: Network, index: int) -> None:
            async def count(stream: object) -> None:
                nonlocal deliveries
                while await stream.receive_some(1 << 16):  # type: ignore[attr-defined]
                    deliveries += 1

            network.serve(ECHO, count)

        async with (
            started(world(jitter_s=0.02), 10, prepare) as networks,
            trio.open_nursery() as nursery,
        ):

            async def send(index: int) -> None:
                streams = [
                    await networks[index].open_stream(other.peer, ECHO)
                    for other in networks
                    if other is not networks[index]
                ]
                for _ in range(100):
                    for stream in streams:
                        await stream.send_all(bytes(300))
                    await trio.sleep(0.01)
                for stream in streams:
                    await stream.aclose()
                await eventually(lambda: deliveries == 10 * 9 * 100)

            for index in range(10):
                nursery.start_soon(send, index)

    start = time.process_time()
    run_virtual(main)
    rate = deliveries / (time.process_time() - start)
    assert deliveries == 10 * 9 * 100
    assert rate > 5_000, f"{rate:.0f} deliveries a second"
