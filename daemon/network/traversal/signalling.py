"""Answers the requests of connected peers: call back, relay, introduce.

A node calls only where the asker itself was met, or where a peer's own signed endpoint says that
members see it. So no request makes a node call a third party.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from daemon.network.peers.dial_policy import is_node_port
from daemon.network.traversal.connector import call_with_token, check_outer
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.dial_back import DialBackService
from daemon.network.traversal.messages import (
    TRAVERSAL_PROTOCOL,
    AskRelay,
    CallMe,
    DialBack,
    Done,
    Incoming,
    Introduce,
    Introduced,
    OuterAddress,
    Purpose,
    Refused,
    Reply,
    Request,
    receive_request,
    request_over,
    send_message,
)
from daemon.network.traversal.observation import Address, observe
from daemon.network.traversal.preamble import PreambleKind
from daemon.network.traversal.punch import punch
from daemon.network.traversal.reachability import ReachabilityMonitor
from daemon.network.traversal.relay import RelayService
from daemon.system.trio_types import TaskStatus
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import PathKind
from protocol.ports.byte_stream import ByteStream
from protocol.rate_limiter import RateLimiters

_log = logging.getLogger(__name__)

# A member of a group of 32 opens two connections to each other one after a relay was lost.
REQUESTS_PER_S, REQUESTS_AT_ONCE = 5.0, 128.0
# Calls of this node on behalf of others that have no answer yet.
CALLS_AT_ONCE = 64
# Those of one peer. A relay may bring many ends at once, and an asker whose port stays silent must
# leave room for others.
CALLS_OF_PEER = 48
REQUEST_S = 10.0


class Signalling:
    """The serving side of `/hypergpu/traversal/1`."""

    def __init__(
        self,
        context: TraversalContext,
        ports: OwnPorts,
        relay: RelayService,
        monitor: ReachabilityMonitor,
    ) -> None:
        self._context, self._ports = context, ports
        self._relay, self._monitor = relay, monitor
        self._dial_back = DialBackService(context, ports)
        self._requests = RateLimiters(per_s=REQUESTS_PER_S, burst=REQUESTS_AT_ONCE)
        self._nursery: trio.Nursery | None = None
        # Unanswered calls by the peer that asked.
        self._calls: Counter[PeerId] = Counter()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve connections that were made for others, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def serve(self, stream: ByteStream) -> None:
        """Answer one request."""
        with trio.move_on_after(REQUEST_S):
            request = await receive_request(stream)
            if not self._requests.of(stream.peer, trio.current_time()).spend(
                1.0, trio.current_time()
            ):
                self._context.refusals.count("busy", f"{stream.peer} asks too often")
                await send_message(stream, Refused(reason="you ask too often"))
                return
            try:
                reply = await self._answer(stream.peer, request)
            except Unreachable as error:
                reply = Refused(reason=str(error)[:200])
            await send_message(stream, reply)

    async def _answer(self, peer: PeerId, request: Request) -> Reply:
        match request:
            case DialBack():
                return await self._dial_back.call(peer, request)
            case CallMe():
                host = self._context.connections.host_of(peer)
                if not host:
                    raise Unreachable("this node knows no address at which it met you")
                target = _checked(host, request.port)
                self._start(peer, self._call, target, request.token, "call", "bulk", "direct")
                return Done()
            case AskRelay():
                return self._relay.state(peer, request.to, self._monitor.reach)
            case Introduce():
                return await self._introduce(peer, request)
            case Incoming():
                return await self._incoming(peer, request)

    # ---------------------------------------------------------------------------------- introduce

    async def _introduce(self, asker: PeerId, wanted: Introduce) -> Introduced:
        connections = self._context.connections
        if wanted.to not in connections.peers() or wanted.to == asker:
            raise Unreachable("this node is not connected to that peer")
        if wanted.outer is None:
            return await self._relay.introduce(asker, wanted, self._monitor.reach)
        if wanted.outer.host != connections.host_of(asker):
            raise PeerFault("identity", f"{asker} names an outer address that is not its own")
        stream = await self._context.open_stream(wanted.to, TRAVERSAL_PROTOCOL)
        incoming = Incoming(
            peer=asker,
            purpose=wanted.purpose,
            port=self._ports.bulk,
            token=bytes(16),
            outer=wanted.outer,
        )
        reply = await request_over(stream, incoming, Introduced)
        if reply.outer is None or reply.outer.host != connections.host_of(wanted.to):
            raise Unreachable("the peer named an outer address that is not its own")
        return reply

    async def _incoming(self, broker: PeerId, wanted: Incoming) -> Reply:
        host = self._context.connections.host_of(broker)
        if not host:
            raise Unreachable("this node knows no address at which it met you")
        if wanted.outer is None:
            target = _checked(host, wanted.port)
            self._start(broker, self._call, target, wanted.token, "leg", wanted.purpose, "relayed")
            return Done()
        if self._monitor.reach.nat == "symmetric":
            raise Unreachable("the router of this node changes ports")
        check_outer(wanted.outer, self._context.reach_of(wanted.peer).observed)
        wanted_at = wanted.outer.host, wanted.outer.port
        local, outer = await observe(_checked(host, wanted.port))
        self._start(broker, self._punch, local, Address(*wanted_at), wanted.purpose)
        return Introduced(outer=OuterAddress(host=outer.host, port=outer.port))

    # ---------------------------------------------------------------------------------- calls

    def _start(self, asker: PeerId, call: Callable[..., Awaitable[None]], *args: object) -> None:
        if self._nursery is None:
            raise Unreachable("this node is stopping")
        if self._calls.total() >= CALLS_AT_ONCE:
            raise Unreachable(f"this node makes {CALLS_AT_ONCE} calls for others now")
        if self._calls[asker] >= CALLS_OF_PEER:
            raise Unreachable(f"this node makes {CALLS_OF_PEER} calls for you now")
        self._calls[asker] += 1
        self._nursery.start_soon(call, asker, *args)

    def _answered(self, asker: PeerId) -> None:
        self._calls[asker] -= 1
        if not self._calls[asker]:
            del self._calls[asker]

    async def _call(
        self,
        asker: PeerId,
        target: Address,
        token: bytes,
        kind: PreambleKind,
        purpose: Purpose,
        path: PathKind,
    ) -> None:
        try:
            stream = await call_with_token(target, kind, token)
        except Unreachable as error:
            _log.debug("a call for %s: %s", purpose, error)
            return
        finally:
            self._answered(asker)
        await self._serve(stream, purpose, path)

    async def _punch(
        self, asker: PeerId, local_port: int, target: Address, purpose: Purpose
    ) -> None:
        try:
            stream = await punch(local_port, target)
        except Unreachable as error:
            _log.debug("%s", error)
            return
        finally:
            self._answered(asker)
        await self._serve(stream, purpose, "punched")

    async def _serve(self, stream: trio.SocketStream, purpose: Purpose, path: PathKind) -> None:
        try:
            await self._context.accept(purpose, stream, path)
        finally:
            await trio.aclose_forcefully(stream)


def _checked(host: str, port: int) -> Address:
    """The address of a call for another peer. Raises `Unreachable` for a port of the system."""
    if not is_node_port(port):
        raise Unreachable(f"port {port} of {host} belongs to the system")
    return Address(host, port)
