"""Fake networks that are started and linked, for the tests of the fake network."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from protocol.ports.network import Network
from simulator.fakes.link import LinkModel, same_link
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm
from tests.ports.network_kit import (
    Swarm,
    SwarmFactory,
)


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


def world(**link: float) -> FakeSwarm:
    return FakeSwarm(random.Random(1), same_link(LinkModel(**link)))
