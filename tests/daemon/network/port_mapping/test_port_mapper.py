"""How ports stay mapped while routers come, go, forget and refuse."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from daemon.network.port_mapping.gateway import Gateway, GatewayLost, GatewayRefused
from daemon.network.port_mapping.port_mapper import (
    CHECK_S,
    LEASE_S,
    NO_ROUTER,
    REFUSED_S,
    REMOVE_S,
    SEARCH_S,
    PortMapper,
)
from protocol.network.port_mapping import PortMapping, why_wan_is_useless

WAN = "45.67.89.101"
PORTS = (4001, 4002)


class FakeRouter:
    """A router in virtual time."""

    protocol = "UPnP"

    def __init__(self) -> None:
        self.wan = WAN
        self.leases: dict[int, float] = {}
        self.on = True
        self.silent = False
        self.refuses = ""
        self.searches = 0
        self.renewals: list[float] = []

    async def find(self) -> Gateway | None:
        await trio.sleep(2.0)
        self.searches += 1
        return self if self.on else None

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.silent:
            await trio.sleep_forever()
        if not self.on:
            raise GatewayLost("no answer")

    async def wan_address(self) -> str:
        await self._answer()
        return self.wan

    async def holds(self, port: int) -> bool:
        await self._answer()
        return self.leases.get(port, 0.0) > trio.current_time()

    async def map(self, port: int, lease_s: int) -> int:
        await self._answer()
        if self.refuses:
            raise GatewayRefused(self.refuses)
        self.leases[port] = trio.current_time() + lease_s
        self.renewals.append(trio.current_time())
        return lease_s

    async def unmap(self, port: int) -> None:
        await self._answer()
        self.leases.pop(port, None)

    def restart(self) -> None:
        self.leases.clear()

    def open_ports(self) -> tuple[int, ...]:
        now = trio.current_time()
        return tuple(sorted(port for port, end in self.leases.items() if end > now))


class Mapped:
    """A mapper at work in a nursery."""

    def __init__(self, router: FakeRouter, nursery: trio.Nursery) -> None:
        self.said: list[PortMapping] = []
        self.mapper = PortMapper(PORTS, self.said.append, router.find)
        self._scope = trio.CancelScope()
        self.ended = trio.Event()
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self._scope:
            await self.mapper.run()
        self.ended.set()

    async def stop(self) -> None:
        self._scope.cancel()
        await self.ended.wait()


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


async def test_ports_are_mapped_renewed_and_removed(
    router: FakeRouter, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mapped = Mapped(router, nursery)
    await trio.sleep(3.0)
    assert router.open_ports() == PORTS
    assert (mapped.mapper.now.state, mapped.mapper.now.advertised) == ("mapped", WAN)
    for _ in range(200):
        await trio.sleep(LEASE_S / 20)
        assert router.open_ports() == PORTS, "no moment without a lease"
    assert len(router.renewals) == pytest.approx(2 * 200 / 10, abs=4), "at half of each lease"
    await mapped.stop()
    assert router.open_ports() == ()


async def test_a_router_that_forgets_or_moves_is_noticed_within_a_minute(
    router: FakeRouter, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mapped = Mapped(router, nursery)
    await trio.sleep(100.0)
    router.restart()
    await trio.sleep(CHECK_S + 1.0)
    assert router.open_ports() == PORTS
    router.on = False
    await trio.sleep(60.0)
    assert mapped.mapper.now.state == "none"
    assert mapped.mapper.now.advertised == ""
    router.restart()
    router.on = True
    await trio.sleep(SEARCH_S[1] + 5.0)
    assert router.open_ports() == PORTS
    router.wan = "45.67.89.150"
    await trio.sleep(CHECK_S + 1.0)
    assert mapped.mapper.now.advertised == "45.67.89.150"
    await mapped.stop()


async def test_without_a_router_the_search_goes_on_ever_more_seldom(
    router: FakeRouter, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    router.on = False
    mapped = Mapped(router, nursery)
    await trio.sleep(3600.0)
    assert mapped.said == [PortMapping(state="none", reason=NO_ROUTER)]
    assert router.searches == pytest.approx(3600 / (SEARCH_S[1] + 2.0), abs=4)
    await mapped.stop()


@pytest.mark.parametrize(
    ("wan", "words"),
    [
        ("192.168.0.2", "private"),
        ("100.64.7.1", "100.64.0.0/10"),
        ("", "names no public IPv4 address"),
        ("fe80::1", "names no public IPv4 address"),
    ],
)
async def test_a_useless_wan_is_named_and_nothing_is_mapped(
    wan: str, words: str, router: FakeRouter, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    router.wan = wan
    mapped = Mapped(router, nursery)
    await trio.sleep(100.0)
    assert (mapped.mapper.now.state, mapped.mapper.now.advertised) == ("double_nat", "")
    assert words in mapped.mapper.now.reason
    assert router.open_ports() == ()
    router.wan = WAN
    await trio.sleep(REFUSED_S + 1.0)
    assert mapped.mapper.now.advertised == WAN
    router.wan = wan
    await trio.sleep(CHECK_S + 1.0)
    assert router.open_ports() == ()
    await mapped.stop()


async def test_a_refusal_is_said_and_tried_again(
    router: FakeRouter, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    router.refuses = "another machine has this port at the router"
    mapped = Mapped(router, nursery)
    await trio.sleep(10.0)
    assert (mapped.mapper.now.state, mapped.mapper.now.reason) == ("refused", router.refuses)
    router.refuses = ""
    await trio.sleep(REFUSED_S)
    assert router.open_ports() == PORTS
    await mapped.stop()


async def test_a_silent_router_does_not_keep_the_node_from_stopping(
    router: FakeRouter, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mapped = Mapped(router, nursery)
    await trio.sleep(10.0)
    router.silent = True
    with trio.fail_after(REMOVE_S + 0.1):
        await mapped.stop()
    await trio.sleep(LEASE_S)
    assert router.open_ports() == (), "what was left behind ends with its lease"


def test_only_an_address_of_the_internet_is_of_use() -> None:
    assert why_wan_is_useless(WAN) == ""
    assert LEASE_S <= 3600
