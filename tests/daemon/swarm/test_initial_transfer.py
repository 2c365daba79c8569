"""A run's initial weights come from this node's disk, or from members, checked chunk by chunk."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import numpy as np
import trio

from daemon.swarm.initial_transfer import InitialServer, obtain_initial, serve_initial
from protocol.averaging.outer_step import state_digest
from protocol.averaging.vector_layout import STATE_CHUNK_BYTES, Vector
from protocol.ports.offload import inline
from simulator.fakes.clock import run_virtual
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm

RUN = b"r" * 32
# 3 chunks, the last one short.
PARAMETERS = 2 * STATE_CHUNK_BYTES // 4 + 100
WEIGHTS = np.random.default_rng(1).standard_normal(PARAMETERS, dtype=np.float32)
STATE = state_digest(WEIGHTS, np.zeros_like(WEIGHTS))


class MemoryWeights:
    """The weights of one node, in memory."""

    def __init__(self, parameters: Vector | None = None) -> None:
        self.parameters = parameters

    def exists(self) -> bool:
        return self.parameters is not None

    def load(self) -> Vector | None:
        return self.parameters

    def save(self, parameters: Vector) -> None:
        self.parameters = parameters.copy()

    def read(self, offset: int, size: int) -> bytes | None:
        if self.parameters is None:
            return None
        return self.parameters.tobytes()[offset : offset + size]


class Story:
    """A newcomer, and members with some weights."""

    def __init__(self, *held: MemoryWeights) -> None:
        self.swarm = FakeSwarm(random.Random(1))
        self.newcomer: FakeNetwork = self.swarm.network(b"\0" * 32)
        self.members: list[FakeNetwork] = []
        for number, weights in enumerate(held, start=1):
            network = self.swarm.network(bytes([number]) * 32)
            serve_initial(network, InitialServer(RUN, weights, inline))
            self.members.append(network)
        self.refused: list[str] = []
        self.waited: list[str] = []

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            async with self.swarm.running(), trio.open_nursery() as nursery:
                for network in (self.newcomer, *self.members):
                    await nursery.start(_live, network)
                await trio.sleep(2.0)
                await story()
                nursery.cancel_scope.cancel()

        run_virtual(main)

    async def obtain(self, weights: MemoryWeights) -> Vector:
        return await obtain_initial(
            run=RUN,
            state=STATE,
            parameters=PARAMETERS,
            weights=weights,
            network=self.newcomer,
            offload=inline,
            refuse=lambda reason, _peer, _detail: self.refused.append(reason),
            wait=self.waited.append,
        )


async def _live(network: FakeNetwork, *, task_status: trio.TaskStatus[None]) -> None:
    async with network.running():
        task_status.started()
        await trio.sleep_forever()


def test_weights_come_from_a_member_and_stay_on_disk() -> None:
    story, own = Story(MemoryWeights(), MemoryWeights(WEIGHTS)), MemoryWeights()

    async def body() -> None:
        assert np.array_equal(await story.obtain(own), WEIGHTS)

    story.play(body)
    assert own.parameters is not None
    assert np.array_equal(own.parameters, WEIGHTS)
    assert not story.refused


def test_own_weights_need_nobody_and_damaged_ones_are_replaced() -> None:
    alone = Story()

    async def without_peers() -> None:
        assert np.array_equal(await alone.obtain(MemoryWeights(WEIGHTS)), WEIGHTS)

    alone.play(without_peers)
    story, damaged = Story(MemoryWeights(WEIGHTS)), MemoryWeights(WEIGHTS + 1)

    async def with_a_member() -> None:
        assert np.array_equal(await story.obtain(damaged), WEIGHTS)

    story.play(with_a_member)
    assert damaged.parameters is not None
    assert np.array_equal(damaged.parameters, WEIGHTS)


def test_other_weights_of_a_member_are_refused_until_one_has_the_right_ones() -> None:
    late = MemoryWeights()
    story = Story(MemoryWeights(WEIGHTS + 1), late)

    async def body() -> None:
        async def arrive() -> None:
            await trio.sleep(60.0)
            late.save(WEIGHTS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(arrive)
            assert np.array_equal(await story.obtain(MemoryWeights()), WEIGHTS)

    story.play(body)
    assert story.refused
    assert story.waited
