"""`FakeSwarm`: the made-up internet between `FakeNetwork`s.

It knows everybody, carries everything, and breaks what it is told to break.

It stands in for libp2p, its DHT and its peer manager, and for TCP and TLS below them, by what they
do and not by how: nodes that start connect to `degree` random others (all of them in a small
swarm), replace what they lose, and find each other without being introduced. Who a peer is follows
from the object that speaks, so nothing here can be forged; what a peer *says* can be anything.

Faults, each of which may come at any moment:

    kill(peer)            the process dies: its connections are reset, its tasks are cancelled
    pause / resume(peer)  SIGSTOP and SIGCONT: nothing enters or leaves, others give up after the ping timeout. (The node's own tasks do go
                          on, since they live in this process; they hear and are heard by nobody.)
    partition(a, b, ...)  nothing passes between groups; `heal()` ends it
    sever / mend(a, b)    nothing passes between these two, whatever else does
    set_link(a, b, model) another model for one path, both ways; None takes it back
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
from simulator.fakes.gossip import GossipMessage
from simulator.fakes.link import LinkMap, LinkModel, Pipe, flight_time, same_link
from simulator.fakes.network import DIAL_ROUND_TRIPS, FakeNetwork
from simulator.fakes.wire import FakeConnection

# A silent connection is given up so long after the last answer...
PING_TIMEOUT_S = 10.0
# ...and up to so much later, since pings do not all start at once: the port's users count on 15 s.
PING_INTERVAL_S = 3.0
# From losing a connection to asking for another one.
RECONNECT_S = 1.0
# What the real peer manager grows to when that many exist...
DEGREE = 16
# ...and its lower bound, which is what worlds of many keep.
LEAST_DEGREE = 8
BULK_PORT = 4002


class FakeSwarm:
    """A world of networks. `async with swarm.running():` around everything that uses it."""

    def __init__(
        self,
        rng: random.Random,
        link: LinkMap | None = None,
        *,
        degree: int = DEGREE,
        tick_s: float = 0.001,
        floods: bool = True,
    ) -> None:
        """Without `floods` gossip does not go from node to node, but to everybody at once after as
        many hops as it would take.
        """
        self.rng = rng
        self.schedule = Schedule(tick_s)
        self.nodes: dict[PeerId, FakeNetwork] = {}
        self._link = link or same_link(LinkModel())
        self._degree = degree
        self.floods = floods
        self._other_links: dict[tuple[PeerId, PeerId], LinkModel] = {}
        self._pipes: dict[tuple[PeerId, PeerId], Pipe] = {}
        self._uplinks: dict[PeerId, Pipe] = {}
        self._downlinks: dict[PeerId, Pipe] = {}
        self._hosts: dict[str, PeerId] = {}
        self._groups: dict[PeerId, int] = {}
        self._severed: set[tuple[PeerId, PeerId]] = set()
        self._wires: dict[FakeConnection, None] = {}
        self._provided: dict[bytes, dict[PeerId, None]] = {}
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
        """The network of the node with this 32-byte key seed.

        A node that died gets its next life by asking again.
        """
        peer = Signer(secret).peer
        earlier = self.nodes.get(peer)
        if earlier is not None and earlier.alive:
            raise ValueError(f"{peer} is alive")
        number = list(self.nodes).index(peer) if earlier else len(self.nodes)
        host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        # The size of a real one; the same in every life of the node.
        certificate = random.Random(secret).randbytes(300)
        self.nodes[peer] = FakeNetwork(
            self, peer, Endpoint(peer=peer, hosts=(host,), port=BULK_PORT, certificate=certificate)
        )
        self._hosts[host] = peer
        self._uplinks[peer] = Pipe(uplink_bps)
        self._downlinks[peer] = Pipe(downlink_bps)
        return self.nodes[peer]

    # ------------------------------------------------------------------------------------------ faults

    def kill(self, peer: PeerId) -> None:
        """The node's process dies. What it sent before is still on its way."""
        node = self.nodes[peer]
        node.paused = False
        self._bury(node)
        node.stop()

    def pause(self, peer: PeerId) -> None:
        self.nodes[peer].paused = True
        self._look_at_cuts()

    def resume(self, peer: PeerId) -> None:
        self.nodes[peer].paused = False
        self._look_at_cuts()
        self._plan_connecting(self.nodes[peer])

    def partition(self, *groups: Iterable[PeerId]) -> None:
        """From now on only members of the same group hear each other; who is in none of them is
        with the others in none.
        """
        self._groups = {
            peer: number for number, group in enumerate(groups, start=1) for peer in group
        }
        self._look_at_cuts()

    def heal(self) -> None:
        """End the partition.

        Nodes dial again some of those they lost, as well as what they are short of.
        """
        self._groups = {}
        self._look_at_cuts()
        for node in self.nodes.values():
            if node.alive:
                for peer in list(self._missed.get(node.peer, ()))[: self._degree // 2]:
                    self._dial_soon(node, peer, RECONNECT_S * self.rng.random())
                self._plan_connecting(node)
        self._missed.clear()

    def sever(self, first: PeerId, second: PeerId) -> None:
        """From now on these two do not hear each other."""
        self._severed |= {(first, second), (second, first)}
        self._look_at_cuts()

    def mend(self, first: PeerId, second: PeerId) -> None:
        """End `sever`. They dial each other again."""
        self._severed -= {(first, second), (second, first)}
        self._look_at_cuts()
        here, there = self.nodes.get(first), self.nodes.get(second)
        if here is not None and there is not None and here.alive and there.alive:
            self._dial_soon(here, second, RECONNECT_S * self.rng.random())

    def set_link(self, first: PeerId, second: PeerId, model: LinkModel | None) -> None:
        """Another model for the path between two nodes; None: the world's own again."""
        for pair in ((first, second), (second, first)):
            if model is None:
                self._other_links.pop(pair, None)
            else:
                self._other_links[pair] = model

    # ------------------------------------------------------------------------------------------ what a path is like

    def link_between(self, source: PeerId, target: PeerId) -> LinkModel:
        if self._other_links:
            other = self._other_links.get((source, target))
            if other is not None:
                return other
        return self._link(source, target)

    def latency(self, source: FakeNetwork, target: FakeNetwork) -> float:
        return self.link_between(source.peer, target.peer).latency_s

    def round_trip(self, here: FakeNetwork, there: FakeNetwork) -> float:
        """Seconds, jitter at its mean."""
        thither, hither = (
            self.link_between(here.peer, there.peer),
            self.link_between(there.peer, here.peer),
        )
        return thither.latency_s + thither.jitter_s / 2 + (hither.latency_s + hither.jitter_s / 2)

    def transit(self, source: FakeNetwork, target: FakeNetwork, size: int) -> tuple[float, float]:
        """When `size` bytes sent now have left, and when they arrive.

        Takes their place in every pipe on the way.
        """
        here, there = source.peer, target.peer
        model = self.link_between(here, there)
        leaves = self._uplinks[here].pass_through(size, trio.current_time())
        if model.bandwidth_bps != math.inf:
            pipe = self._pipes.get((here, there))
            if pipe is None:
                pipe = self._pipes[here, there] = Pipe()
            pipe.bandwidth_bps = model.bandwidth_bps
            leaves = pipe.pass_through(size, leaves)
        arrives = leaves + flight_time(model, self.rng, reliable=True)
        return leaves, self._downlinks[there].pass_through(size, arrives)

    def is_cut(self, here: FakeNetwork, there: FakeNetwork) -> bool:
        if here.paused or there.paused:
            return True
        if self._severed and (here.peer, there.peer) in self._severed:
            return True
        groups = self._groups
        return bool(groups) and groups.get(here.peer, 0) != groups.get(there.peer, 0)

    def ping_deadline(self) -> float:
        return trio.current_time() + PING_TIMEOUT_S + PING_INTERVAL_S * self.rng.random()

    def _look_at_cuts(self) -> None:
        for wire in list(self._wires):
            wire.set_cut(self.is_cut(*wire.ends))

    # ------------------------------------------------------------------------------------------ who is connected

    def enter(self, node: FakeNetwork) -> None:
        node.alive = True
        self._plan_connecting(node)

    def leave(self, node: FakeNetwork) -> None:
        self._bury(node)
        for peers in self._provided.values():
            peers.pop(node.peer, None)

    def _bury(self, node: FakeNetwork) -> None:
        node.alive = False
        for wire in [wire for wire in self._wires if node in wire.ends]:
            wire.set_cut(self.is_cut(*wire.ends))
            wire.give_up(wire.ends.index(node), "this node has stopped")

    def connect(self, here: FakeNetwork, there: FakeNetwork, *, is_link: bool) -> FakeConnection:
        wire = FakeConnection(self, (here, there), is_link=is_link)
        self._wires[wire] = None
        return wire

    def forget(self, wire: FakeConnection) -> None:
        self._wires.pop(wire, None)

    def link_up(self, pair: tuple[PeerId, PeerId]) -> None:
        """Two nodes have shaken hands; nothing happens when they are linked already or cannot hear
        each other.
        """
        here, there = self.nodes[pair[0]], self.nodes[pair[1]]
        if (
            here.alive
            and there.alive
            and not self.is_cut(here, there)
            and there.peer not in here.wires
            and here.peer not in there.wires
        ):
            wire = self.connect(here, there, is_link=True)
            here.link_made(wire, there.peer)
            there.link_made(wire, here.peer)

    def link_missing(self, node: FakeNetwork, peer: PeerId) -> None:
        """A node lost its link to a peer: it will look for another one."""
        self._missed.setdefault(node.peer, {})[peer] = None
        if node.alive:
            self.schedule.at(
                trio.current_time() + RECONNECT_S * (0.5 + self.rng.random()),
                self._plan_connecting,
                node,
            )

    def _plan_connecting(self, node: FakeNetwork) -> None:
        """Dial as many random live nodes as the node is short of.

        Called when something changed, never in a loop.
        """
        short_of = self._degree - len(node.wires)
        if not node.alive or node.paused or short_of <= 0:
            return
        known = [other for other in self.nodes.values() if self._could_dial(node, other)]
        for other in known if len(known) <= short_of else self.rng.sample(known, short_of):
            self._dial_soon(node, other.peer, 0.0)

    def _could_dial(self, node: FakeNetwork, other: FakeNetwork) -> bool:
        return (
            other.alive
            and other is not node
            and other.peer not in node.wires
            and not self.is_cut(node, other)
        )

    def _dial_soon(self, node: FakeNetwork, peer: PeerId, delay_s: float) -> None:
        seconds = delay_s + DIAL_ROUND_TRIPS * self.round_trip(node, self.nodes[peer])
        self.schedule.at(trio.current_time() + seconds, self.link_up, (node.peer, peer))

    # ------------------------------------------------------------------------------------------ gossip among many

    def tell_everybody(self, rumour: GossipMessage) -> None:
        """Have a message heard by all who are connected at all, after the flight of so many hops as
        a random graph of this degree has.
        """
        origin = self.nodes[rumour.origin]
        if origin.wires:
            hops = max(1, math.ceil(math.log(max(2, len(self.nodes)), self._degree)))
            latency_s = self.latency(origin, self.nodes[next(iter(origin.wires))])
            self.schedule.at(trio.current_time() + hops * latency_s, self._heard_by_all, rumour)

    def _heard_by_all(self, rumour: GossipMessage) -> None:
        origin = self.nodes[rumour.origin]
        whole = not (origin.paused or self._severed or self._groups)
        for node in self.nodes.values():
            if (
                node.alive
                and node.wires
                and node is not origin
                and not (node.paused if whole else self.is_cut(origin, node))
            ):
                node.hear_at_once(rumour)

    # ------------------------------------------------------------------------------------------ lookups

    def listener(self, endpoint: Endpoint) -> FakeNetwork | None:
        """Whoever takes bulk connections at the endpoint's place."""
        for host in endpoint.hosts:
            peer = self._hosts.get(host)
            if peer is not None and endpoint.port == BULK_PORT:
                return self.nodes[peer]
        return None

    def provide(self, key: bytes, peer: PeerId) -> None:
        self._provided.setdefault(key, {})[peer] = None

    def providers(self, key: bytes, node: FakeNetwork) -> list[PeerId]:
        """Those on this side of a partition.

        A node that was killed is still listed, as a DHT's records outlive who wrote them.
        """
        groups = self._groups
        return [
            peer
            for peer in self._provided.get(key, ())
            if groups.get(peer, 0) == groups.get(node.peer, 0)
        ]
