"""`FakeSwarm`: the fake internet that connects `FakeNetwork`s.

It replaces libp2p, its DHT and its peer manager, and TCP and TLS below them. It copies what they
do, not how. A node that starts connects to `degree` random others (all of them in a small swarm).
It replaces the connections that it loses, and it finds others without an introduction. The object
that speaks determines the peer, so no identity can be forged here. What a peer *says* can be
anything.

Each fault may come at any moment:

    kill(peer)            the process dies: its connections are reset, its tasks are cancelled
    pause / resume(peer)  SIGSTOP and SIGCONT: nothing enters or leaves, and others give up after
                          the ping timeout. The node's own tasks go on, since they live in this
                          process, but nobody hears them and they hear nobody.
    partition(a, b, ...)  nothing passes between groups; `heal()` ends the partition
    sever / mend(a, b)    nothing passes between these two nodes
    set_link(a, b, model) another model for one path, both ways; None restores the world's own
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from protocol.identity import PeerId, Signer
from protocol.ports.endpoint import Endpoint
from simulator.fakes.clock import Schedule
from simulator.fakes.connection import FakeConnection, is_cut
from simulator.fakes.gossip import GossipMessage
from simulator.fakes.link import LinkMap, LinkModel, same_link
from simulator.fakes.network import DIAL_ROUND_TRIPS, FakeNetwork
from simulator.fakes.paths import Paths

# From losing a connection to asking for another one.
RECONNECT_S = 1.0
# The real peer manager grows to this many connections where that many nodes exist.
DEGREE = 16
# The real peer manager's lower bound, which worlds of many nodes keep.
LEAST_DEGREE = 8
BULK_PORT = 4002


class FakeSwarm:
    """All nodes of one world. Use it inside `async with swarm.running():`."""

    def __init__(
        self,
        rng: random.Random,
        link: LinkMap | None = None,
        *,
        degree: int = DEGREE,
        tick_s: float = 0.001,
        floods: bool = True,
    ) -> None:
        """Without `floods` a gossip message reaches everybody at once.

        It then arrives after as many hops as it would take from node to node.
        """
        self.rng = rng
        self.schedule = Schedule(tick_s)
        self.paths = Paths(rng, self.schedule, link or same_link(LinkModel()))
        self.nodes: dict[PeerId, FakeNetwork] = {}
        self.floods = floods
        self._degree = degree
        self._hosts: dict[str, PeerId] = {}
        self._connections: dict[FakeConnection, None] = {}
        self._provided: dict[bytes, dict[PeerId, None]] = {}
        # The links that each node lost and has not replaced since the last `heal`.
        self._missed: dict[PeerId, dict[PeerId, None]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.schedule.run)
            yield
            nursery.cancel_scope.cancel()

    def network(
        self, secret: bytes, *, uplink_bps: float = float("inf"), downlink_bps: float = float("inf")
    ) -> FakeNetwork:
        """Make the network of the node with this 32-byte key seed.

        A node that died gets its next life by a second call.
        """
        peer = Signer(secret).peer
        earlier = self.nodes.get(peer)
        if earlier is not None and earlier.alive:
            raise ValueError(f"{peer} is alive")
        number = list(self.nodes).index(peer) if earlier else len(self.nodes)
        host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        # It has the size of a real certificate and is the same in every life of the node.
        certificate = random.Random(secret).randbytes(300)
        self.nodes[peer] = FakeNetwork(
            self, peer, Endpoint(peer=peer, hosts=(host,), port=BULK_PORT, certificate=certificate)
        )
        self._hosts[host] = peer
        self.paths.add_node(peer, uplink_bps=uplink_bps, downlink_bps=downlink_bps)
        return self.nodes[peer]

    # ---------------------------------------------------------------- faults

    def kill(self, peer: PeerId) -> None:
        """End the node's process. What it sent before still arrives."""
        node = self.nodes[peer]
        node.paused = False
        self._bury(node)
        node.stop()

    def pause(self, peer: PeerId) -> None:
        self.nodes[peer].paused = True
        self._refresh_cuts()

    def resume(self, peer: PeerId) -> None:
        self.nodes[peer].paused = False
        self._refresh_cuts()
        self._plan_connecting(self.nodes[peer])

    def partition(self, *groups: Iterable[PeerId]) -> None:
        """From now on only members of one group hear each other.

        Nodes in none of the groups form one more group.
        """
        self.paths.partition(groups)
        self._refresh_cuts()

    def heal(self) -> None:
        """End the partition. Nodes dial some of the peers they lost, and others as needed."""
        self.paths.heal()
        self._refresh_cuts()
        for node in self.nodes.values():
            if node.alive:
                for peer in list(self._missed.get(node.peer, ()))[: self._degree // 2]:
                    self._dial_soon(node, peer, RECONNECT_S * self.rng.random())
                self._plan_connecting(node)
        self._missed.clear()

    def sever(self, first: PeerId, second: PeerId) -> None:
        """From now on these two nodes do not hear each other."""
        self.paths.sever(first, second)
        self._refresh_cuts()

    def mend(self, first: PeerId, second: PeerId) -> None:
        """End `sever`. The first node dials the second."""
        self.paths.mend(first, second)
        self._refresh_cuts()
        here, there = self.nodes.get(first), self.nodes.get(second)
        if here is not None and there is not None and here.alive and there.alive:
            self._dial_soon(here, second, RECONNECT_S * self.rng.random())

    def set_link(self, first: PeerId, second: PeerId, model: LinkModel | None) -> None:
        """Replace the model of the path between two nodes; None restores the world's own."""
        self.paths.set_link(first, second, model)

    def _refresh_cuts(self) -> None:
        for connection in list(self._connections):
            connection.refresh_cut()

    # ---------------------------------------------------------------- who is connected

    def enter(self, node: FakeNetwork) -> None:
        node.alive = True
        self._plan_connecting(node)

    def leave(self, node: FakeNetwork) -> None:
        self._bury(node)
        for peers in self._provided.values():
            peers.pop(node.peer, None)

    def _bury(self, node: FakeNetwork) -> None:
        node.alive = False
        for connection in [each for each in self._connections if node in each.ends]:
            connection.refresh_cut()
            connection.give_up(connection.ends.index(node), "this node has stopped")

    def connect(self, here: FakeNetwork, there: FakeNetwork, *, is_link: bool) -> FakeConnection:
        connection = FakeConnection(self.paths, (here, there), self._forget, is_link=is_link)
        self._connections[connection] = None
        return connection

    def _forget(self, connection: FakeConnection) -> None:
        self._connections.pop(connection, None)

    def link_up(self, pair: tuple[PeerId, PeerId]) -> None:
        """Link two nodes that have shaken hands.

        Nothing happens when they are linked already or cannot hear each other.
        """
        here, there = self.nodes[pair[0]], self.nodes[pair[1]]
        if (
            here.alive
            and there.alive
            and not is_cut(self.paths, here, there)
            and there.peer not in here.connections
            and here.peer not in there.connections
        ):
            connection = self.connect(here, there, is_link=True)
            here.link_made(connection, there.peer)
            there.link_made(connection, here.peer)

    def link_missing(self, node: FakeNetwork, peer: PeerId) -> None:
        """A node lost its link to a peer. It looks for another one."""
        self._missed.setdefault(node.peer, {})[peer] = None
        if node.alive:
            self.schedule.at(
                trio.current_time() + RECONNECT_S * (0.5 + self.rng.random()),
                self._plan_connecting,
                node,
            )

    def _plan_connecting(self, node: FakeNetwork) -> None:
        """Dial as many random live nodes as the node lacks.

        This is called when something changed, never in a loop.
        """
        lacking = self._degree - len(node.connections)
        if not node.alive or node.paused or lacking <= 0:
            return
        known = [other for other in self.nodes.values() if self._could_dial(node, other)]
        for other in known if len(known) <= lacking else self.rng.sample(known, lacking):
            self._dial_soon(node, other.peer, 0.0)

    def _could_dial(self, node: FakeNetwork, other: FakeNetwork) -> bool:
        return (
            other.alive
            and other is not node
            and other.peer not in node.connections
            and not is_cut(self.paths, node, other)
        )

    def _dial_soon(self, node: FakeNetwork, peer: PeerId, delay_s: float) -> None:
        seconds = delay_s + DIAL_ROUND_TRIPS * self.paths.round_trip_s(node.peer, peer)
        self.schedule.at(trio.current_time() + seconds, self.link_up, (node.peer, peer))

    # ---------------------------------------------------------------- gossip among many

    def gossip_to_all(self, message: GossipMessage) -> None:
        """Deliver a message to all nodes that have any connection, at one instant.

        It arrives after the flight of as many hops as a random graph of this degree has.
        """
        origin = self.nodes[message.origin]
        if origin.connections:
            hops = max(1, math.ceil(math.log(max(2, len(self.nodes)), self._degree)))
            first = next(iter(origin.connections))
            latency_s = self.paths.latency_s(origin.peer, first)
            self.schedule.at(trio.current_time() + hops * latency_s, self._deliver_to_all, message)

    def _deliver_to_all(self, message: GossipMessage) -> None:
        origin = self.nodes[message.origin]
        whole = not (origin.paused or self.paths.has_cuts)
        for node in self.nodes.values():
            if (
                node.alive
                and node.connections
                and node is not origin
                and not (node.paused if whole else is_cut(self.paths, origin, node))
            ):
                node.gossip.hear_at_once(message)

    # ---------------------------------------------------------------- lookups

    def listener(self, endpoint: Endpoint) -> FakeNetwork | None:
        """The node that accepts bulk connections at an endpoint, if there is one."""
        for host in endpoint.hosts:
            peer = self._hosts.get(host)
            if peer is not None and endpoint.port == BULK_PORT:
                return self.nodes[peer]
        return None

    def provide(self, key: bytes, peer: PeerId) -> None:
        self._provided.setdefault(key, {})[peer] = None

    def providers(self, key: bytes, peer: PeerId) -> list[PeerId]:
        """The providers of a key on the asking peer's side of a partition.

        A killed node is still listed, as a DHT's records outlive their author.
        """
        return [
            provider
            for provider in self._provided.get(key, ())
            if self.paths.in_one_group(provider, peer)
        ]
