"""A router that speaks UPnP IGD, through miniupnpc.

Its calls block, so each runs in a thread that a cancelled caller does not wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import miniupnpc

from daemon.network.port_mapping.gateway import DESCRIPTION, GatewayLost, GatewayRefused
from daemon.system.offload import in_abandonable_thread
from protocol.text.printable import printable

T = TypeVar("T")

# Routers answer a multicast question within the second that it names; and one repetition.
DISCOVER_MS = 2000
# The longest text of an IP address.
MAX_ADDRESS_CHARS = 45
# UPnP's error descriptions are a few words.
MAX_REASON_CHARS = 200
# How the library's own errors begin: the router does not answer, or answers nonsense.
_LIBRARY = ("Miniupnpc", "Invalid", "UnknownError")
# miniupnpc raises plain exceptions; these texts are UPnP's own names of its error codes.
_REFUSALS = {
    "ConflictInMappingEntry": "another machine has this port at the router",
    "OnlyPermanentLeasesSupported": "the router maps ports for ever or not at all",
    "Action Not Authorized": "the router's owner allows no mapping",
    "NoPortMapsAvailable": "the router's table is full",
}


class UpnpGateway:
    """An Internet Gateway Device that was found on the LAN."""

    protocol = "UPnP"

    def __init__(self, device: Any) -> None:
        """`device` is a `miniupnpc.UPnP` that has selected a router."""
        self._device = device

    async def wan_address(self) -> str:
        found = await self._ask(self._device.externalipaddress)
        # A router, or who poses as one, writes this text, and people read it.
        return printable(str(found or ""), MAX_ADDRESS_CHARS)

    async def holds(self, port: int) -> bool:
        found = await self._ask(partial(self._device.getspecificportmapping, port, "TCP"))
        return found is not None and (found[0], int(found[1])) == (self._device.lanaddr, port)

    async def map(self, port: int, lease_s: int) -> int:
        mine = self._device.lanaddr

        def add() -> None:
            self._device.addportmapping(port, "TCP", mine, port, DESCRIPTION, "", lease_s)

        await self._ask(add)
        return lease_s

    async def unmap(self, port: int) -> None:
        await self._ask(partial(self._device.deleteportmapping, port, "TCP"))

    async def _ask(self, call: Callable[[], T]) -> T:
        try:
            return await in_abandonable_thread(call)
        except Exception as error:
            # The library's only exceptions are `Exception` itself with a text.
            text = printable(str(error), MAX_REASON_CHARS)
            if text.startswith(_LIBRARY):
                raise GatewayLost(text) from error
            known = (why for name, why in _REFUSALS.items() if name in text)
            raise GatewayRefused(next(known, text)) from error


async def find_upnp() -> UpnpGateway | None:
    """Look for a UPnP router on the LAN; None where none answers."""

    def discover() -> UpnpGateway | None:
        device = miniupnpc.UPnP()
        device.discoverdelay = DISCOVER_MS
        try:
            if not device.discover():
                return None
            device.selectigd()
        except Exception:  # noqa: BLE001
            # The library raises `Exception` where no device answers, or none is a router.
            return None
        return UpnpGateway(device)

    return await in_abandonable_thread(discover)
