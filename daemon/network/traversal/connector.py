"""Gets a TCP connection to a peer that cannot be called, in one of three ways.

A connected peer is asked to call back. For the other two ways, a member that both are connected to
introduces them: it relays, or it tells each end where the other one will call from.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import trio

from daemon.network.addresses import parse_ip
from daemon.network.peers.dial_policy import carries_ipv4
from daemon.network.tcp import disable_nagle
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.messages import (
    TRAVERSAL_PROTOCOL,
    AskRelay,
    CallMe,
    Done,
    Introduce,
    Introduced,
    OuterAddress,
    Purpose,
    RelayState,
    request_over,
)
from daemon.network.traversal.observation import Address, observe
from daemon.network.traversal.preamble import PreambleKind, encode_preamble
from daemon.network.traversal.punch import punch
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import (
    Reachability,
    RelayOffer,
    Way,
    is_private,
    order_relays,
    ways_to,
)
from protocol.ports.network import RelayUse

# The peer calls at once: two round trips of 500 ms, and a busy peer.
CALL_BACK_S = 4.0
CONNECT_S = 4.0
# Members asked whether they know a peer. In a small swarm all of them do.
ASKED_AT_ONCE = 8
ASK_S = 3.0
# Introductions tried for one connection.
INTRODUCTIONS = 3
# Peers whose relay is remembered: as many as a plan has members, four times.
MAX_RELAYED = 256


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """A connected member that is connected to the wanted peer too."""

    peer: PeerId
    # Where this node met it.
    host: str
    state: RelayState
    rtt_s: float | None

    @property
    def offer(self) -> RelayOffer:
        return RelayOffer(
            relay=self.peer, sessions=self.state.sessions, most=self.state.most, rtt_s=self.rtt_s
        )


class Connector:
    """Opens connections around routers."""

    def __init__(
        self, context: TraversalContext, ports: OwnPorts, own_reach: Callable[[], Reachability]
    ) -> None:
        self._context, self._ports, self._own_reach = context, ports, own_reach
        # The relay of the last bulk connection to each peer; the oldest first.
        self.relays: dict[PeerId, RelayUse] = {}

    def ways_around(self, peer: PeerId) -> tuple[Way, ...]:
        """The ways to try where no address of a peer leads to it."""
        own, theirs = self._own_reach(), self._context.reach_of(peer)
        ways = ways_to(own, theirs, seen_elsewhere=False)
        # Without the peer's signed address no call may go there, so that punching cannot work.
        return tuple(way for way in ways if way == "relay" or (way == "punch" and theirs.observed))

    def reaches(self, peer: PeerId) -> tuple[Reachability, Reachability]:
        """What this node and a peer know of how others reach them."""
        return self._own_reach(), self._context.reach_of(peer)

    def answers(self, peer: PeerId) -> bool:
        """Whether the peer says that members' calls to it arrive."""
        return self._context.reach_of(peer).callable is True

    async def connect(self, peer: PeerId, purpose: Purpose, way: Way) -> trio.SocketStream:
        """A TCP connection whose other end is, as far as is known, `peer`. TLS or Noise proves it.

        Raises:
            Unreachable: This way does not lead to the peer; the text says why.
        """
        match way:
            case "call_back":
                stream = await self._call_back(peer)
            case "punch":
                stream = await self._punched(peer, purpose)
            case "relay":
                stream = await self._relayed(peer, purpose)
            case _:
                raise ValueError(f"{way} needs no connector")
        disable_nagle(stream)
        return stream

    async def _call_back(self, peer: PeerId) -> trio.SocketStream:
        context = self._context
        if not self._ports.bulk:
            raise Unreachable("this node has no port for bulk connections")
        if not context.connections.host_of(peer):
            raise Unreachable(f"{peer} was never met at an address, so it cannot call back")
        with context.expected.expecting() as expected:
            stream = await context.open_stream(peer, TRAVERSAL_PROTOCOL)
            await request_over(stream, CallMe(port=self._ports.bulk, token=expected.token), Done)
            try:
                with trio.fail_after(CALL_BACK_S):
                    return await expected.stream()
            except trio.TooSlowError:
                raise Unreachable(f"{peer} did not call back within {CALL_BACK_S:.0f} s") from None
            finally:
                await expected.drop()

    # ---------------------------------------------------------------------------------- relays

    async def _relayed(self, peer: PeerId, purpose: Purpose) -> trio.SocketStream:
        brokers = await self._brokers(peer)
        by_peer = {broker.peer: broker for broker in brokers}
        reasons: list[str] = []
        for relay in order_relays(broker.offer for broker in brokers)[:INTRODUCTIONS]:
            try:
                introduced = await self._introduce(relay, Introduce(to=peer, purpose=purpose))
                address = Address(by_peer[relay].host, introduced.port)
                stream = await call_with_token(address, "leg", introduced.token)
            except Unreachable as error:
                reasons.append(str(error))
            else:
                if purpose == "bulk":
                    self._remember(peer, by_peer[relay])
                return stream
        raise Unreachable("; ".join(reasons) or f"no connected member relays to {peer}")

    def _remember(self, peer: PeerId, relay: Broker) -> None:
        self.relays.pop(peer, None)
        self.relays[peer] = RelayUse(relay=relay.peer, cap_bps=relay.state.cap_bps)
        if len(self.relays) > MAX_RELAYED:
            del self.relays[next(iter(self.relays))]

    async def _introduce(self, broker: PeerId, wanted: Introduce) -> Introduced:
        stream = await self._context.open_stream(broker, TRAVERSAL_PROTOCOL)
        return await request_over(stream, wanted, Introduced)

    async def _brokers(self, peer: PeerId) -> list[Broker]:
        """The connected members that are connected to `peer`, asked all at once."""
        connections, found = self._context.connections, list[Broker]()

        async def ask(one: PeerId, host: str) -> None:
            try:
                stream = await self._context.open_stream(one, TRAVERSAL_PROTOCOL)
                state = await request_over(stream, AskRelay(to=peer), RelayState)
            except Unreachable:
                # It is as good as a member that does not know the peer.
                return
            if state.knows:
                rtt_s = connections.rtt_of(one)
                found.append(Broker(peer=one, host=host, state=state, rtt_s=rtt_s))

        def distance(one: PeerId) -> tuple[float, PeerId]:
            rtt_s = connections.rtt_of(one)
            return (rtt_s if rtt_s is not None else 1.0), one

        # A peer that only a relay leads to cannot relay itself.
        hosts = {one: connections.host_of(one) for one in connections.peers() if one != peer}
        asked = sorted((one for one, host in hosts.items() if host), key=distance)[:ASKED_AT_ONCE]
        with trio.move_on_after(ASK_S):
            async with trio.open_nursery() as nursery:
                for one in asked:
                    nursery.start_soon(ask, one, hosts[one])
        return found

    # ---------------------------------------------------------------------------------- punching

    async def _punched(self, peer: PeerId, purpose: Purpose) -> trio.SocketStream:
        brokers = sorted(await self._brokers(peer), key=lambda one: one.rtt_s or 1.0)
        reasons: list[str] = []
        for broker in brokers[:INTRODUCTIONS]:
            try:
                local, outer = await observe(Address(broker.host, broker.state.observe_at))
                wanted = Introduce(
                    to=peer, purpose=purpose, outer=OuterAddress(host=outer.host, port=outer.port)
                )
                theirs = (await self._introduce(broker.peer, wanted)).outer
                if theirs is None:
                    raise Unreachable(f"{broker.peer} named no address of {peer}")
                check_outer(theirs, self._context.reach_of(peer).observed)
                return await punch(local, Address(theirs.host, theirs.port))
            except Unreachable as error:
                reasons.append(str(error))
        raise Unreachable("; ".join(reasons) or f"no connected member knows {peer}")


def check_outer(outer: OuterAddress, observed: str) -> None:
    """Check an address that a member named as the peer's.

    The peer itself signed `observed`, the host at which members see it. Without this check, a
    member could let nodes call any host.

    Raises:
        Unreachable: With the reason why the address is not called.
    """
    if not observed:
        raise Unreachable("the peer has not said yet where members see it")
    if outer.host != observed:
        raise Unreachable(f"a member named {outer.host}, the peer itself {observed}")
    address = parse_ip(outer.host)
    # A name would be looked up, and 0.0.0.0 is this machine.
    is_usable = (
        address is not None
        and not address.is_unspecified
        and not address.is_multicast
        and not is_private(outer.host)
        and (address.version == 4 or (address.is_global and not carries_ipv4(address)))
    )
    if not is_usable or outer.port < 1024:
        raise Unreachable(f"{outer.host} port {outer.port} is not called for others")


async def call_with_token(address: Address, kind: PreambleKind, token: bytes) -> trio.SocketStream:
    """Connect, and say which request the connection belongs to. Raises `Unreachable`."""
    try:
        with trio.fail_after(CONNECT_S):
            stream = await trio.open_tcp_stream(address.host, address.port)
            await stream.send_all(encode_preamble(kind, token))
    except (trio.TooSlowError, OSError, trio.BrokenResourceError) as error:
        why = str(error) or f"no answer within {CONNECT_S:.0f} s"
        raise Unreachable(f"{address.host} port {address.port}: {why}") from error
    return stream
