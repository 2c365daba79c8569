"""The owner's records reach every node: by gossip, and by asking a new neighbour."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from daemon.swarm.frames import frame
from daemon.swarm.owner_exchange import ASK_AGAIN_S, PROTOCOL, OwnerExchange
from protocol.digest import digest
from protocol.identity import Signer
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.envelope import encode_signed, sign
from protocol.messages.membership import Recovery, Revocation
from protocol.ports.byte_stream import ByteStream
from simulator.fakes.clock import run_virtual
from simulator.fakes.swarm import FakeSwarm
from tests.protocol.rounds import people

RUN = digest(b"run")
OWNER, FRIEND, OTHER = people(3)
REVOKED = sign(OWNER, RUN, Revocation(subject=FRIEND.peer))
RECOVERED = sign(OWNER, RUN, Recovery(serial=1, tip=RUN, number=0, voters=(OWNER.peer,)))


class Nodes:
    """Nodes of one run, each with its records."""

    def __init__(self, count: int) -> None:
        self.swarm = FakeSwarm(random.Random(1))
        self.networks = [self.swarm.network(bytes([65 + i]) * 32) for i in range(count)]
        self.records = [OwnerRecords(RUN, OWNER.peer) for _ in range(count)]
        self.refused: list[tuple[str, str]] = []
        self.exchanges: list[OwnerExchange] = []

    def serve(self, *indices: int) -> None:
        for i in indices:
            self.exchanges.append(
                OwnerExchange(
                    self.networks[i],
                    RUN,
                    self.records[i],
                    lambda reason, peer, _: self.refused.append((reason, peer)),
                )
            )

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery, self.swarm.running():
                for network in self.networks:
                    await nursery.start(_run, network)
                for exchange in self.exchanges:
                    await nursery.start(exchange.run)
                await story()
                nursery.cancel_scope.cancel()

        run_virtual(main)


async def _run(network: object, *, task_status: object) -> None:
    async with network.running():  # type: ignore[attr-defined]
        task_status.started()  # type: ignore[attr-defined]
        await trio.sleep_forever()


def test_a_record_reaches_everybody_within_seconds() -> None:
    nodes = Nodes(3)
    nodes.serve(0, 1, 2)

    async def story() -> None:
        for one in nodes.networks[1:]:
            await nodes.networks[0].open_stream(one.peer, PROTOCOL)
        await trio.sleep(3.0)
        nodes.records[0].add(REVOKED)
        await trio.sleep(5.0)
        assert [one.revoked for one in nodes.records] == [{FRIEND.peer}] * 3

    nodes.play(story)
    assert nodes.refused == []


def test_a_node_that_comes_later_asks_its_neighbours() -> None:
    nodes = Nodes(2)
    nodes.records[0].add(REVOKED)
    nodes.records[0].add(RECOVERED)
    nodes.serve(0, 1)

    async def story() -> None:
        await nodes.networks[1].open_stream(nodes.networks[0].peer, PROTOCOL)
        await trio.sleep(5.0)
        assert nodes.records[1].signed() == nodes.records[0].signed()

    nodes.play(story)


def test_a_stranger_spreads_nothing() -> None:
    """The stranger answers with, and publishes, a revocation of its own."""
    nodes = Nodes(2)
    nodes.serve(0)
    stranger = nodes.networks[1]
    own = Signer(b"B" * 32)
    forged = sign(own, RUN, Revocation(subject=OWNER.peer))

    async def answer(stream: ByteStream) -> None:
        lie = OwnerRecords(RUN, own.peer)
        lie.add(forged)
        await stream.send_all(frame(lie.encode()))
        await stream.send_eof()

    stranger.serve(PROTOCOL, answer)
    topic = f"hypergpu/{RUN.hex()}/owner"
    stranger.subscribe(topic, lambda _peer, _data: True)

    async def story() -> None:
        await stranger.open_stream(nodes.networks[0].peer, PROTOCOL)
        await trio.sleep(2.0)
        await stranger.publish(topic, encode_signed(forged))
        await stranger.publish(topic, b"\xc1")
        await trio.sleep(ASK_AGAIN_S + 5.0)
        assert nodes.records[0].revoked == frozenset()

    nodes.play(story)
    assert {reason for reason, _ in nodes.refused} == {"not_owner", "malformed"}


def test_silent_neighbours_delay_no_record() -> None:
    silent = 5
    nodes = Nodes(2 + silent)
    nodes.serve(0, 1)

    async def say_nothing(_stream: ByteStream) -> None:
        await trio.sleep_forever()

    for network in nodes.networks[2:]:
        network.serve(PROTOCOL, say_nothing)

    async def story() -> None:
        for network in nodes.networks[2:]:
            await network.open_stream(nodes.networks[0].peer, PROTOCOL)
        await trio.sleep(2.0)
        await nodes.networks[1].open_stream(nodes.networks[0].peer, PROTOCOL)
        nodes.records[0].add(REVOKED)
        await trio.sleep(5.0)
        assert nodes.records[1].revoked == {FRIEND.peer}

    nodes.play(story)
