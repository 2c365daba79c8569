"""Relays connections between two members that cannot call each other.

    asker  ── Introduce(to) ──▶  relay  ── Incoming(asker) ──▶  peer
           ◀── Introduced ─────         ◀──── Done ──────────
           ══ TCP, token ══▶    relay   ◀══ TCP, token ═══
                       bytes pass in both directions

The ends run TLS or Noise over it, so that the relay sees ciphertext, and a changed byte breaks the
connection. A request names no one but its sender, whom the control connection proves, and nothing
is reserved beyond it.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import msgspec
import trio

from daemon.network.tcp import disable_nagle, notice_loss
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.messages import (
    TRAVERSAL_PROTOCOL,
    Done,
    Incoming,
    Introduce,
    Introduced,
    RelayState,
    request_over,
)
from daemon.network.traversal.relay_limits import MAX_SESSIONS, RelayLimits, RelayPlace
from daemon.system.trio_types import TaskStatus
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.network.reachability import Reachability
from protocol.rate_limiter import RateLimiter, RateLimiters

# Both ends call at once after the reply: three round trips of 500 ms, and two busy peers.
HALF_OPEN_S = 8.0
# What one recv takes. 64 KB cost 1.1 CPU s/GB, and 128 sessions hold 16 MB.
PIECE_BYTES = 1 << 16
# Bytes that one newcomer may have relayed at once, and a second in the long run.
NEWCOMER_BYTES, NEWCOMER_BYTES_PER_S = float(256 << 20), float(1 << 20)
# The same for a member: ten rounds of 1 GB at once, then a fast home line.
MEMBER_BYTES, MEMBER_BYTES_PER_S = float(10 << 30), float(50 << 20)
# The cap may be exceeded for this long, so that small messages do not wait.
CAP_BURST_S = 0.1
# A silent end is asked for a sign of life after this time, and then three times.
KEEPALIVE_S, KEEPALIVE_PROBE_S, KEEPALIVE_PROBES = 30, 10, 3


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of a node allows. 0 bits a second: no cap."""

    enabled: bool = True
    cap_bps: float = 0.0


class RelayFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a node relays now, and the bytes that it has relayed since its start."""

    sessions: int = 0
    relayed_bytes: int = 0


class RelayService:
    """The sessions that this node relays."""

    def __init__(self, context: TraversalContext, settings: RelaySettings, ports: OwnPorts) -> None:
        self._relayed_bytes = 0
        self._context, self._settings, self._ports = context, settings, ports
        self._limits = RelayLimits()
        self._nursery: trio.Nursery | None = None
        self._of_member = RateLimiters(per_s=MEMBER_BYTES_PER_S, burst=MEMBER_BYTES)
        self._of_newcomer = RateLimiters(per_s=NEWCOMER_BYTES_PER_S, burst=NEWCOMER_BYTES)
        cap = settings.cap_bps / 8
        self._cap = RateLimiter(per_s=cap, burst=cap * CAP_BURST_S, now=0.0) if cap else None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry sessions until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def figures(self) -> RelayFigures:
        """What this node relays."""
        return RelayFigures(sessions=self._limits.sessions, relayed_bytes=self._relayed_bytes)

    def state(self, asker: PeerId, to: PeerId, own: Reachability) -> RelayState:
        """Whether this node knows a peer, and would relay to it."""
        able = not self._why_not(asker, own)
        return RelayState(
            knows=to in self._context.connections.peers(),
            sessions=self._limits.sessions,
            most=MAX_SESSIONS if able else 0,
            observe_at=self._ports.bulk,
            cap_bps=self._settings.cap_bps,
        )

    def _why_not(self, asker: PeerId, own: Reachability) -> str:
        if not self._settings.enabled:
            return "the owner of this node has switched relaying off"
        if not self._ports.bulk or own.callable is False:
            return "nobody can call this node"
        if not self._context.matters(asker) and not self._context.is_in_run(asker):
            return "this node relays for members and newcomers of its run only"
        return self._limits.why_not(asker, member=self._context.matters(asker))

    async def introduce(self, asker: PeerId, wanted: Introduce, own: Reachability) -> Introduced:
        """Begin a session between `asker` and the peer that it wants.

        Raises:
            Unreachable: This node does not relay it, or the peer does not want it.
        """
        if why := self._why_not(asker, own):
            self._context.refusals.count("busy", f"a relay for {asker}: {why}")
            raise Unreachable(why)
        if self._nursery is None:
            raise Unreachable("this node is stopping")
        place = self._limits.begin(asker, member=self._context.matters(asker))
        token: bytes = await self._nursery.start(self._session, asker, wanted, place)
        return Introduced(port=self._ports.bulk, token=token)

    async def _session(
        self,
        asker: PeerId,
        wanted: Introduce,
        place: RelayPlace,
        *,
        task_status: TaskStatus[bytes] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        context, ends = self._context, list[trio.SocketStream]()
        try:
            with context.expected.expecting() as one, context.expected.expecting() as two:
                stream = await context.open_stream(wanted.to, TRAVERSAL_PROTOCOL)
                incoming = Incoming(
                    peer=asker, purpose=wanted.purpose, port=self._ports.bulk, token=two.token
                )
                await request_over(stream, incoming, Done)
                task_status.started(one.token)
                try:
                    with trio.move_on_after(HALF_OPEN_S):
                        ends.append(await one.stream())
                        ends.append(await two.stream())
                finally:
                    await one.drop()
                    await two.drop()
            if len(ends) < 2:
                context.refusals.count("timeout", f"a relay for {asker} stayed half open")
                return
            place.opened()
            await self._carry(ends[0], ends[1], asker)
        finally:
            place.end()
            for end in ends:
                await trio.aclose_forcefully(end)

    async def _carry(self, one: trio.SocketStream, two: trio.SocketStream, asker: PeerId) -> None:
        """Pass bytes in both directions until both have ended, or one breaks."""
        rates = self._of_member if self._context.matters(asker) else self._of_newcomer
        limiters = [rates.of(asker, trio.current_time())]
        if self._cap is not None:
            limiters.append(self._cap)
        for end in (one, two):
            # An end that is gone already shows in the first read.
            with suppress(OSError):
                disable_nagle(end)
                notice_loss(end)
                _keep_alive(end)
        async with trio.open_nursery() as nursery:

            async def pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
                try:
                    await self._pump(source, target, limiters)
                except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                    # One end is gone. The other one learns of it when its connection closes.
                    nursery.cancel_scope.cancel()

            nursery.start_soon(pump, one, two)
            nursery.start_soon(pump, two, one)

    async def _pump(
        self, source: trio.SocketStream, target: trio.SocketStream, limiters: list[RateLimiter]
    ) -> None:
        buffer = memoryview(bytearray(PIECE_BYTES))
        while size := await source.socket.recv_into(buffer):
            await target.send_all(buffer[:size])
            self._relayed_bytes += size
            now = trio.current_time()
            owed_s = max(limiter.owe(size, now) for limiter in limiters)
            if owed_s > 0:
                await trio.sleep(owed_s)
        await target.send_eof()


def _keep_alive(stream: trio.SocketStream) -> None:
    """Let the kernel find out when an end has vanished without a word."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_PROBE_S)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
