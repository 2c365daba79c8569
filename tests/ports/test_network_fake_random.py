"""The fake network under random faults: streams stay in order, and a seed replays exactly."""

from __future__ import annotations

import random
import time

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
from tests.ports.fake_swarm import started, world
from tests.ports.network_kit import (
    ECHO,
    TOPIC,
    Handlers,
    ask,
    eventually,
    pattern,
)

pytestmark = pytest.mark.virtual_time


faults = st.lists(
    st.tuples(
        st.sampled_from(["kill", "pause", "resume", "partition", "heal", "slow", "revive"]),
        st.integers(0, 5),
        st.floats(0.0, 8.0),
    ),
    max_size=12,
)


# Not shrunk: a story has a dozen steps at most, and shrinking takes minutes, beyond the test's time
# limit.
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(plan=faults, seed=st.integers(0, 1000))
def test_streams_stay_in_order_under_random_faults_and_links_return(
    plan: list[tuple[str, int, float]], seed: int
) -> None:
    """Six nodes talk while anything fails.

    No stream delivers other bytes than were sent, none waits for ever, and at the end all nodes are
    linked.
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
            # A partition, a pause and a slow link may follow each other, but not for ever.
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
                    assert received == data[:100_000], "the stream ended early"
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
    """What every node received and when, in a noisy minute."""
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

    The limit leaves room for a busy machine.
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
