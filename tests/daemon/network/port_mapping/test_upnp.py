"""What a router says over UPnP, which anybody on the LAN can pose as."""

from __future__ import annotations

import pytest

from daemon.network.port_mapping.gateway import GatewayRefused
from daemon.network.port_mapping.upnp import MAX_ADDRESS_CHARS, MAX_REASON_CHARS, UpnpGateway
from protocol.network.port_mapping import why_wan_is_useless

ESCAPES = "\x1b[2J\x1b]0;x\x07" * 100


class HostileRouter:
    """Answers with escape codes of terminals."""

    lanaddr = "192.168.1.2"

    def externalipaddress(self) -> str:
        return ESCAPES

    def addportmapping(self, *_given: object) -> None:
        raise Exception(ESCAPES)


async def test_wan_address_of_a_hostile_router_is_printable_and_short() -> None:
    wan = await UpnpGateway(HostileRouter()).wan_address()
    assert wan.isprintable()
    assert len(wan) == MAX_ADDRESS_CHARS
    assert why_wan_is_useless(wan).isprintable()


async def test_refusal_of_a_hostile_router_is_printable_and_short() -> None:
    with pytest.raises(GatewayRefused) as refused:
        await UpnpGateway(HostileRouter()).map(4001, 600)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) == MAX_REASON_CHARS
