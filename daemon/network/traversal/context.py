"""What the network gives to the parts that get around routers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import trio

from daemon.network.error_boundary import Refusals
from daemon.network.traversal.expected import ExpectedConnections
from daemon.network.traversal.messages import Purpose
from protocol.identity import PeerId
from protocol.network.reachability import PathKind, Reachability
from protocol.ports.byte_stream import ByteStream


class Connections(Protocol):
    """The control connections that are up."""

    def peers(self) -> set[PeerId]: ...

    def host_of(self, peer: PeerId) -> str:
        """Where a peer was met; empty where only a relay leads to it."""

    def rtt_of(self, peer: PeerId) -> float | None:
        """The round-trip time of a peer's best connection in seconds."""

    def since_s(self, peer: PeerId) -> float | None:
        """Since when a peer is connected, on the network's clock; None where it is not."""


class OwnPorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports on which this node listens. `bulk` is 0 for an observer."""

    control: int
    bulk: int


class TraversalContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the network gives to each part of this folder."""

    connections: Connections
    # Opens a stream over a connection that is up. Raises `Unreachable`.
    open_stream: Callable[[PeerId, str], Awaitable[ByteStream]]
    # Serves a connection that a peer opened over one of these ways, until it is closed.
    accept: Callable[[Purpose, trio.SocketStream, PathKind], Awaitable[None]]
    expected: ExpectedConnections
    refusals: Refusals
    # Whether a peer matters (a member), and whether it says that it is in this node's run.
    matters: Callable[[PeerId], bool]
    is_in_run: Callable[[PeerId], bool]
    # What the peer's signed endpoint says of how others reach it.
    reach_of: Callable[[PeerId], Reachability]
