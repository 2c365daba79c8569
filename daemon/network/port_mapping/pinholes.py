"""Keeps pinholes for this node's ports open at the home router, as long as the node runs.

A pinhole that the node leaves behind, because it was killed, ends with its lease.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import trio

from daemon.network.port_mapping.gateway import GatewayLost, GatewayRefused
from daemon.network.port_mapping.pcp import PcpGateway, ask_map, default_gateway_6, new_nonce
from daemon.network.port_mapping.port_mapper import LEASE_S, REFUSED_S, REMOVE_S, SEARCH_S
from protocol.network.port_mapping import MappingState, PortMapping

# Between two renewals. A router that restarted has forgotten its pinholes.
RENEW_S = 60.0

AskMap = Callable[[PcpGateway, str, int, bytes, int], Awaitable[int]]


class Pinholes:
    """Opens this node's TCP ports for calls over IPv6."""

    def __init__(
        self,
        ports: Sequence[int],
        own_host: Callable[[], str],
        on_change: Callable[[], None],
        find: Callable[[], PcpGateway | None] = default_gateway_6,
        ask: AskMap = ask_map,
    ) -> None:
        """
        Args:
            own_host: Gives this machine's IPv6 address towards the internet; empty without one.
            on_change: Called when the router begins or stops to let calls in.
            find: Finds the router.
            ask: Asks the router.
        """
        self._ports, self._own_host = tuple(dict.fromkeys(ports)), own_host
        self._on_change, self._find, self._ask = on_change, find, ask
        self._nonce = new_nonce()
        # The router and the own address of the pinholes that may be open.
        self._opened: tuple[PcpGateway, str] | None = None
        self.now = PortMapping(state="searching", reason="looking for a router")

    async def run(self) -> None:
        """Keep the pinholes open until cancelled, then close them."""
        pause = SEARCH_S[0]
        try:
            while True:
                gateway, own = self._find(), self._own_host()
                if gateway is None or not own:
                    self._become("none", "this machine has no IPv6 address behind a router")
                    pause = min(2 * pause, REFUSED_S)
                else:
                    pause = await self._open(gateway, own, pause)
                await trio.sleep(pause)
        finally:
            await self._close()

    async def _open(self, gateway: PcpGateway, own: str, pause: float) -> float:
        """Open or renew. Returns the seconds until the next try."""
        asked_at = trio.current_time()
        if self._opened not in (None, (gateway, own)):
            await self._close()
        try:
            self._opened = gateway, own
            leases = [
                await self._ask(gateway, own, port, self._nonce, LEASE_S) for port in self._ports
            ]
        except GatewayRefused as refused:
            self._become("refused", str(refused))
            return REFUSED_S
        except GatewayLost as lost:
            self._become("none", str(lost))
            return min(2 * pause, REFUSED_S)
        self._become(
            "mapped",
            "the router lets calls to these ports in",
            ports=self._ports,
            wan=own,
            lease_ends_s=asked_at + min(leases),
        )
        return min(RENEW_S, min(leases) / 2)

    async def _close(self) -> None:
        """Close what was opened, also where this task was cancelled."""
        if self._opened is None:
            return
        (gateway, own), self._opened = self._opened, None
        with trio.CancelScope(deadline=trio.current_time() + REMOVE_S, shield=True):
            for port in self._ports:
                with suppress(GatewayLost, GatewayRefused):
                    await self._ask(gateway, own, port, self._nonce, 0)

    def _become(
        self,
        state: MappingState,
        reason: str,
        *,
        ports: tuple[int, ...] = (),
        wan: str = "",
        lease_ends_s: float | None = None,
    ) -> None:
        before = self.now
        self.now = PortMapping(
            state=state,
            reason=reason,
            wan=wan,
            ports=ports,
            protocol="PCP" if state in ("mapped", "refused") else "",
            lease_ends_s=lease_ends_s,
        )
        if (before.state == "mapped") != (state == "mapped"):
            self._on_change()
