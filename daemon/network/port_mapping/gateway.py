"""What a router offers to a node that wants to be called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

# Shown in the router's list of mapped ports.
DESCRIPTION = "hypergpu"


class GatewayLost(Exception):
    """The router does not answer any more."""


class GatewayRefused(Exception):
    """The router answers, and does not do what it is asked. The text says why."""


class Gateway(Protocol):
    """A router that was found. Every method raises `GatewayLost`."""

    protocol: str

    async def wan_address(self) -> str:
        """The router's address towards the internet; empty where it has none."""

    async def holds(self, port: int) -> bool:
        """Whether the router maps this TCP port to this machine."""

    async def map(self, port: int, lease_s: int) -> int:
        """Map a TCP port to the same port of this machine, or renew the lease.

        Returns:
            The lease that the router grants, in seconds.

        Raises:
            GatewayRefused: When another machine has the port, or the router gives no lease.
        """

    async def unmap(self, port: int) -> None:
        """Remove the mapping of a port."""


FindGateway = Callable[[], Awaitable[Gateway | None]]
"""Looks for a router; None where none answers."""
