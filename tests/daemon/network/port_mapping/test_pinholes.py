"""Pinholes for IPv6: the bytes of PCP, and how they are renewed and closed."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.network.port_mapping.gateway import GatewayLost, GatewayRefused
from daemon.network.port_mapping.pcp import (
    ANSWER_BYTES,
    NONCE_BYTES,
    PcpGateway,
    decode_map,
    default_gateway_6,
    encode_map,
)
from daemon.network.port_mapping.pinholes import RENEW_S, Pinholes
from daemon.network.port_mapping.port_mapper import LEASE_S, REFUSED_S

OWN, OTHER = "2a0e:97c0:7:1::10", "2a0e:97c0:7:1::11"
NONCE = bytes(range(NONCE_BYTES))
ROUTER = PcpGateway("fe80::1", 2)


def answer(port: int = 4001, *, result: int = 0, lease_s: int = 600, nonce: bytes = NONCE) -> bytes:
    head = struct.pack("!BBBBII12x", 2, 129, 0, result, lease_s, 77)
    return head + nonce + struct.pack("!B3xHH", 6, port, port) + bytes(16)


def test_encode_map_is_what_rfc_6887_draws() -> None:
    data = encode_map(OWN, 4001, NONCE, 600)
    assert len(data) == ANSWER_BYTES
    assert data[:8] == struct.pack("!BBHI", 2, 1, 0, 600)
    assert data[8:24] == socket.inet_pton(socket.AF_INET6, OWN) == data[44:]
    assert data[24:36] == NONCE
    assert data[36:44] == struct.pack("!B3xHH", 6, 4001, 4001)


def test_decode_map_gives_the_lease_and_refuses_other_answers() -> None:
    assert decode_map(answer(), 4001, NONCE) == 600
    for wrong in (answer(4002), answer(nonce=bytes(NONCE_BYTES)), answer()[:30], b"", b"\0\0\0\0"):
        with pytest.raises(ValueError, match="answer"):
            decode_map(wrong, 4001, NONCE)
    with pytest.raises(GatewayRefused, match="lets nothing in"):
        decode_map(answer(result=2)[:24], 4001, NONCE)
    with pytest.raises(GatewayRefused, match="error 99"):
        decode_map(answer(result=99), 4001, NONCE)


@given(st.binary(max_size=80))
def test_decode_map_bears_any_bytes(data: bytes) -> None:
    try:
        decode_map(data, 4001, NONCE)
    except (ValueError, GatewayRefused):
        return


def test_default_gateway_6_reads_the_kernels_table(tmp_path: Path) -> None:
    table, none = tmp_path / "ipv6_route", "0" * 32
    route = f"{none} 00 {none} 00 %s 00000400 00000001 00000000 00000003 %s\n"
    via = socket.inet_pton(socket.AF_INET6, "fe80::1").hex()
    table.write_text(route % (none, "lo") + route % (via, "gone") + route % (via, "lo"))
    found = default_gateway_6(table)
    assert found == PcpGateway("fe80::1", socket.if_nametoindex("lo"))
    table.write_text(route % (none, "lo"))
    assert default_gateway_6(table) is None
    assert default_gateway_6(tmp_path / "missing") is None


class Router:
    """Notes what it is asked, and refuses or is silent on demand."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, int], float] = {}
        self.error: Exception | None = None
        self.nonces: set[bytes] = set()

    async def ask(
        self, _gateway: PcpGateway, own: str, port: int, nonce: bytes, lease_s: int
    ) -> int:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.nonces.add(nonce)
        if lease_s:
            self.open[own, port] = trio.current_time() + lease_s
        else:
            self.open.pop((own, port), None)
        return lease_s


async def test_pinholes_are_renewed_follow_the_address_and_are_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router, own, changes = Router(), [OWN], list[str]()
    made = Pinholes(
        (4001, 4002, 4001), lambda: own[0], lambda: changes.append(made.now.state),
        lambda: ROUTER, router.ask,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await trio.sleep(1)
        assert set(router.open) == {(OWN, 4001), (OWN, 4002)}
        assert (made.now.state, made.now.protocol) == ("mapped", "PCP")
        assert made.now.ports == (4001, 4002)
        # A router that restarted.
        router.open.clear()
        await trio.sleep(RENEW_S)
        assert set(router.open) == {(OWN, 4001), (OWN, 4002)}
        assert min(router.open.values()) >= trio.current_time() + LEASE_S - RENEW_S
        own[0] = OTHER
        await trio.sleep(RENEW_S)
        assert set(router.open) == {(OTHER, 4001), (OTHER, 4002)}
        nursery.cancel_scope.cancel()
    assert not router.open, "closed on stop"
    assert changes == ["mapped"]
    assert len(router.nonces) == 1


@pytest.mark.parametrize(
    ("error", "state"), [(GatewayRefused("no"), "refused"), (GatewayLost("silent"), "none")]
)
async def test_pinholes_try_again_where_the_router_refuses_or_is_silent(
    autojump_clock: trio.testing.MockClock, error: Exception, state: str
) -> None:
    router = Router()
    router.error = error
    made = Pinholes((4001,), lambda: OWN, lambda: None, lambda: ROUTER, router.ask)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await trio.sleep(1)
        assert (made.now.state, made.now.reason) == (state, str(error))
        router.error = None
        await trio.sleep(2 * REFUSED_S)
        assert made.now.state == "mapped"
        nursery.cancel_scope.cancel()


async def test_pinholes_wait_for_an_address_and_a_router(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = Router()
    made = Pinholes((4001,), lambda: "", lambda: None, lambda: ROUTER, router.ask)
    with trio.move_on_after(5 * REFUSED_S):
        await made.run()
    assert made.now.state == "none"
    assert not router.nonces
