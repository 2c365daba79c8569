"""Gossip, lookups and links of a network."""

from __future__ import annotations

import pytest
import trio

from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.ports.network import MAX_GOSSIP_BYTES, Network, Subscription
from tests.ports.network_kit import (
    ECHO,
    LOSS_NOTICED_S,
    TIMEOUT_S,
    TOPIC,
    Handlers,
    SwarmFactory,
    eventually,
    pattern,
)


class NetworkGossipSuite:
    """Part of `NetworkSuite`."""

    async def test_gossip_reaches_all_others_with_its_signer(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        count = 5
        got: dict[int, set[tuple[PeerId, bytes]]] = {index: set() for index in range(count)}
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(count, handlers.prepare) as swarm, trio.open_nursery() as nursery:
                said = {
                    (network.peer, b"from %d" % index)
                    for index, network in enumerate(swarm.networks)
                }
                done = {index: trio.Event() for index in range(count)}

                async def listen(index: int) -> None:
                    own = swarm.networks[index].peer
                    async for signer, data in handlers.subscriptions[index]:
                        assert (signer, data) not in got[index], "delivered twice"
                        got[index].add((signer, data))
                        if got[index] == {(peer, words) for peer, words in said if peer != own}:
                            done[index].set()

                for index in range(count):
                    nursery.start_soon(listen, index)
                for index, network in enumerate(swarm.networks):
                    await network.publish(TOPIC, b"from %d" % index)
                for index in range(count):
                    await done[index].wait()
                nursery.cancel_scope.cancel()

    async def test_gossip_that_is_not_accepted_is_not_delivered(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(3, handlers.prepare) as swarm:
                speaker = swarm.networks[0]
                await speaker.publish(TOPIC, b"bad news")
                await eventually(
                    lambda: (
                        {index for index, _, data in handlers.offered if data == b"bad news"}
                        == {1, 2}
                    )
                )
                await speaker.publish(TOPIC, b"good news")
                for index in (1, 2):
                    async for signer, data in handlers.subscriptions[index]:
                        assert (signer, data) == (speaker.peer, b"good news")
                        break
                assert {signer for _, signer, _ in handlers.offered} == {speaker.peer}

    async def test_gossip_without_a_reader_is_accepted_and_not_kept(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        heard: dict[int, list[bytes]] = {0: [], 1: []}
        unread: dict[int, Subscription] = {}

        def prepare(network: Network, index: int) -> None:
            handlers.prepare(network, index)

            def accept(_peer: PeerId, data: bytes) -> bool:
                heard[index].append(data)
                return True

            unread[index] = network.subscribe(f"{TOPIC}/unread", accept, keep=False)

        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, prepare) as swarm:
                await swarm.networks[0].publish(f"{TOPIC}/unread", b"news")
                await eventually(lambda: heard[1] == [b"news"])
                with trio.move_on_after(0.2) as nothing_waits:
                    async for _ in unread[1]:
                        break
                assert nothing_waits.cancelled_caught
                assert unread[1].dropped == 0

    async def test_large_gossip_passes_and_larger_never_raises(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        large = pattern(MAX_GOSSIP_BYTES // 2)[: MAX_GOSSIP_BYTES // 2]
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                await swarm.networks[0].publish(TOPIC, bytes(MAX_GOSSIP_BYTES + 1))
                await swarm.networks[0].publish(TOPIC, large)
                async for _, data in handlers.subscriptions[1]:
                    assert data == large, "a message above the limit must not arrive"
                    break

    async def test_slow_reader_loses_the_oldest_and_knows_how_many(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                said = 0
                subscription = handlers.subscriptions[1]
                while subscription.dropped == 0:
                    assert said < 100_000, "a queue that is never full has no bound"
                    await swarm.networks[0].publish(TOPIC, b"%d" % said)
                    said += 1
                    # Arrivals set the pace, with a few messages under way, so that the queue drops
                    # messages, not the swarm.
                    with trio.move_on_after(2.0):
                        await eventually(lambda least=said - 8: len(handlers.offered) >= least)
                async for _, data in subscription:
                    assert int(data) >= 1, "the oldest should have been dropped"
                    break

    async def test_find_providers_finds_all_the_others(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        key = bytes(range(32))
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(5, handlers.prepare) as swarm:
                for network in swarm.networks[:4]:
                    await network.provide(key)
                everyone = {network.peer for network in swarm.networks[:4]}
                # Nodes that provide the key, and one that does not.
                for network in swarm.networks:
                    found: set[PeerId] = set()
                    while found != everyone - {network.peer}:
                        found = set(await network.find_providers(key)) - {network.peer}
                        assert found <= everyone
                        await trio.sleep(0.05)
                assert set(await swarm.networks[0].find_providers(bytes(32))) == set()

    async def test_links_say_who_is_connected(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(4, handlers.prepare) as swarm:
                for network in swarm.networks:
                    others = {other.peer for other in swarm.networks} - {network.peer}
                    assert {link.peer for link in network.links()} == others
                    assert len(network.links()) == len(others), "one link for each peer"
                    assert all(link.path in ("direct", "relayed") for link in network.links())
                    assert network.addresses
                    assert all(
                        address.endswith(f"/p2p/{network.peer}") for address in network.addresses
                    )
                    assert network.endpoint.peer == network.peer
                    # Round trips are measured continuously, so each link gets a measurement sooner
                    # or later.
                    await eventually(
                        lambda network=network: all(
                            (link.rtt_s or 0.0) > 0.0 for link in network.links()
                        )
                    )

    async def test_death_of_a_peer_is_reported_and_what_is_up_comes_first(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(4, handlers.prepare) as swarm, trio.open_nursery() as nursery:
                ups: dict[int, set[PeerId]] = {0: set(), 1: set(), 2: set()}
                knows_all = {index: trio.Event() for index in ups}
                lost = {index: trio.Event() for index in ups}
                victim = swarm.networks[3].peer

                async def watch(index: int) -> None:
                    async for change in swarm.networks[index].changes():
                        assert change.reason
                        if change.up:
                            ups[index].add(change.peer)
                            if len(ups[index]) == 3:
                                knows_all[index].set()
                        elif change.peer == victim:
                            lost[index].set()

                for index in ups:
                    nursery.start_soon(watch, index)
                for event in knows_all.values():
                    await event.wait()
                await swarm.kill(3)
                with trio.fail_after(LOSS_NOTICED_S):
                    for event in lost.values():
                        await event.wait()
                for index in ups:
                    assert victim not in {link.peer for link in swarm.networks[index].links()}
                with pytest.raises(Unreachable):
                    await swarm.networks[0].open_stream(victim, ECHO)
                nursery.cancel_scope.cancel()
