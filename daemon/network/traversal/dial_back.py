"""Calls a peer back, so that the peer learns whether others can call it.

The call goes to the address from which the peer is seen, and to no other. It says the peer's token
and waits for it to come back: another program that happens to listen there does not count.
"""

from __future__ import annotations

import trio

from daemon.network.peers.dial_policy import is_node_port
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.messages import DialBack, DialedBack
from daemon.network.traversal.preamble import TOKEN_BYTES, encode_preamble, receive_exactly
from protocol.errors import Unreachable
from protocol.identity import PeerId
from protocol.rate_limiter import RateLimiter, RateLimiters

# A SYN that was lost is sent again after 1 s.
DIAL_BACK_S = 3.0
# Calls for one peer: its first start, changes of its address, and a few more.
OF_PEER_PER_S, OF_PEER_AT_ONCE = 0.1, 6.0
# Calls for all peers. A new run of 64 members asks within a minute.
IN_ALL_PER_S, IN_ALL_AT_ONCE = 2.0, 64.0


class DialBackService:
    """Answers `DialBack` requests."""

    def __init__(self, context: TraversalContext, ports: OwnPorts) -> None:
        self._context, self._ports = context, ports
        self._of_peer = RateLimiters(per_s=OF_PEER_PER_S, burst=OF_PEER_AT_ONCE)
        self._in_all = RateLimiter(per_s=IN_ALL_PER_S, burst=IN_ALL_AT_ONCE, now=0.0)

    async def call(self, peer: PeerId, request: DialBack) -> DialedBack:
        """Call both ports of a peer. Raises `Unreachable` when the peer asks too often."""
        host, now = self._context.connections.host_of(peer), trio.current_time()
        if not host:
            raise Unreachable("this node knows no address at which it met you")
        if not self._of_peer.of(peer, now).spend(1.0, now) or not self._in_all.spend(1.0, now):
            raise Unreachable("this node calls back only so often")
        answered: dict[int, bool] = {}

        async def probe(port: int) -> None:
            answered[port] = await answers(host, port, request.token)

        async with trio.open_nursery() as nursery:
            # Others behind the asker's address must not get calls to the services of a system.
            for port in filter(is_node_port, {request.control, request.bulk}):
                nursery.start_soon(probe, port)
        return DialedBack(
            host=host,
            control=answered.get(request.control, False),
            bulk=answered.get(request.bulk, False),
            observe_at=tuple(port for port in (self._ports.bulk, self._ports.control) if port),
        )


async def answers(host: str, port: int, token: bytes) -> bool:
    """Whether the node that expects `token` answers at an address, on a new connection."""
    try:
        with trio.fail_after(DIAL_BACK_S):
            stream = await trio.open_tcp_stream(host, port)
            async with stream:
                await stream.send_all(encode_preamble("probe", token))
                return await receive_exactly(stream, TOKEN_BYTES) == token
    except (trio.TooSlowError, OSError, trio.BrokenResourceError, Unreachable):
        return False
