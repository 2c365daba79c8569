"""Keeps this node's ports mapped at the home router for as long as the node runs.

    searching ── found ──▶ mapped: looked at every CHECK_S, renewed at half of the lease
        ▲                      │
        └── router lost ◀──────┘     (a router that restarts forgets its mappings)

A mapping that the node leaves behind, because it was killed, ends with its lease.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import trio

from daemon.network.port_mapping.gateway import FindGateway, Gateway, GatewayLost, GatewayRefused
from daemon.network.port_mapping.nat_pmp import find_nat_pmp
from daemon.network.port_mapping.upnp import find_upnp
from protocol.network.port_mapping import MappingState, PortMapping, why_wan_is_useless

# How long a killed node's ports stay open at most. Routers accept at least this much; RFC 6886
# recommends an hour.
LEASE_S = 1800
# Between two looks at the mappings: a router that restarted is noticed within this time.
CHECK_S = 20.0
# The pause after the first search in vain, and the longest. It doubles each time.
SEARCH_S = (2.0, 30.0)
# Between two tries with a router that refuses, or whose address is of no use.
REFUSED_S = 60.0
# How long UPnP may take longer than NAT-PMP. A router with UPnP answers within 2 s; without one,
# miniupnpc asks for several kinds of device in turn.
PREFERRED_S = 3.0
# To remove the mappings at the end. A silent router must not keep the node from stopping.
REMOVE_S = 3.0

NO_ROUTER = "no router answers UPnP or NAT-PMP"


async def find_gateway() -> Gateway | None:
    """Look for a router by both protocols at once; UPnP comes first where it answers in time."""
    found: dict[str, Gateway | None] = {}

    async def look(name: str, find: FindGateway) -> None:
        found[name] = await find()
        if name == "nat-pmp" and found[name] is not None:
            nursery.cancel_scope.deadline = trio.current_time() + PREFERRED_S

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look, "upnp", find_upnp)
        nursery.start_soon(look, "nat-pmp", find_nat_pmp)
    return found.get("upnp") or found.get("nat-pmp")


class PortMapper:
    """Maps TCP ports to the same ports outside."""

    def __init__(
        self,
        ports: Sequence[int],
        on_change: Callable[[PortMapping], None],
        find: FindGateway = find_gateway,
        lease_s: int = LEASE_S,
    ) -> None:
        """`on_change` is called with what the router does now, when that changes."""
        self._ports = tuple(dict.fromkeys(ports))
        self._on_change = on_change
        self._find = find
        self._lease_s = lease_s
        self._mapped: set[int] = set()
        self.now = PortMapping(state="searching", reason="looking for a router")

    async def run(self) -> None:
        """Map the ports until cancelled, then remove the mappings."""
        pause = SEARCH_S[0]
        while True:
            gateway = await self._find()
            if gateway is None:
                self._become(PortMapping(state="none", reason=NO_ROUTER))
                await trio.sleep(pause)
                pause = min(2 * pause, SEARCH_S[1])
                continue
            pause = SEARCH_S[0]
            try:
                await self._keep(gateway)
            except GatewayLost as lost:
                self._mapped.clear()
                self._become(PortMapping(state="none", reason=f"the router was lost: {lost}"))
                await trio.sleep(SEARCH_S[0])
            finally:
                await self._remove(gateway)

    async def _keep(self, gateway: Gateway) -> None:
        """Keep the ports mapped while the router answers. Raises `GatewayLost`."""
        renew_at = trio.current_time()
        wan = ""
        while True:
            try:
                wan = await gateway.wan_address()
                if why := why_wan_is_useless(wan):
                    await self._remove(gateway)
                    self._stay_unmapped(gateway, "double_nat", why, wan)
                    await trio.sleep(REFUSED_S)
                    continue
                held = [await gateway.holds(port) for port in self._ports]
                due = trio.current_time() >= renew_at or wan != self.now.wan
                if due or not all(held):
                    renew_at = trio.current_time() + await self._map(gateway, wan) / 2
            except GatewayRefused as refused:
                await self._remove(gateway)
                self._stay_unmapped(gateway, "refused", str(refused), wan)
                await trio.sleep(REFUSED_S)
                continue
            await trio.sleep(CHECK_S)

    async def _map(self, gateway: Gateway, wan: str) -> int:
        """Map all ports. Returns the shortest lease in seconds."""
        asked_at = trio.current_time()
        lease_s = self._lease_s
        for port in self._ports:
            self._mapped.add(port)
            lease_s = min(lease_s, await gateway.map(port, self._lease_s))
        self._become(
            PortMapping(
                state="mapped",
                reason=f"the router at {wan} sends these ports here",
                wan=wan,
                ports=self._ports,
                protocol=gateway.protocol,
                lease_ends_s=asked_at + lease_s,
            )
        )
        return lease_s

    def _stay_unmapped(self, gateway: Gateway, state: MappingState, why: str, wan: str) -> None:
        self._become(PortMapping(state=state, reason=why, wan=wan, protocol=gateway.protocol))

    async def _remove(self, gateway: Gateway) -> None:
        """Remove what was mapped, also where this task was cancelled."""
        with trio.CancelScope(deadline=trio.current_time() + REMOVE_S, shield=True):
            for port in sorted(self._mapped):
                with suppress(GatewayLost, GatewayRefused):
                    await gateway.unmap(port)
        self._mapped.clear()

    def _become(self, now: PortMapping) -> None:
        before, self.now = self.now, now
        if before != now:
            self._on_change(now)
