"""NAT-PMP's packets, and a router on loopback that speaks it."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.network.port_mapping.gateway import GatewayLost, GatewayRefused
from daemon.network.port_mapping.nat_pmp import (
    NatPmpGateway,
    decode_answer,
    default_gateway,
    encode_map,
)


def test_requests_are_those_of_the_rfc() -> None:
    assert encode_map(4001, 3600) == bytes.fromhex("00020000 0fa1 0fa1 00000e10")
    assert encode_map(4001, 0) == bytes.fromhex("00020000 0fa1 0000 00000000")


@given(st.binary(max_size=64))
def test_no_answer_of_any_bytes_breaks_the_reader(data: bytes) -> None:
    with contextlib.suppress(ValueError, GatewayRefused):
        assert len(decode_answer(data, 2, 16)) == 8


def test_the_default_gateway_is_read_from_the_kernels_table(tmp_path: Path) -> None:
    table = tmp_path / "route"
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    lan = "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    table.write_text(head + lan)
    assert default_gateway(table) == ""
    table.write_text(head + lan + "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n")
    assert default_gateway(table) == "192.168.1.1"
    assert default_gateway(tmp_path / "absent") == ""


async def test_a_router_on_loopback_is_asked_until_it_answers(nursery: trio.Nursery) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))
        answers = {
            bytes((0, 0)): struct.pack("!BBHI4B", 0, 128, 0, 7, 45, 67, 89, 101),
            encode_map(4001, 600): struct.pack("!BBHIHHI", 0, 130, 0, 7, 4001, 4001, 120),
            encode_map(4002, 600): struct.pack("!BBHIHHI", 0, 130, 0, 7, 4002, 5000, 600),
            encode_map(4002, 0): struct.pack("!BBHIHHI", 0, 130, 0, 7, 4002, 0, 0),
            encode_map(4003, 600): struct.pack("!BBHI", 0, 130, 2, 7),
        }
        asked: list[bytes] = []

        async def serve() -> None:
            while True:
                data, sender = await server.recvfrom(64)
                asked.append(data)
                if len(asked) > 1:
                    await server.sendto(b"noise", sender)
                    await server.sendto(answers[data], sender)

        nursery.start_soon(serve)
        router = NatPmpGateway("127.0.0.1", server.getsockname()[1])
        assert await router.wan_address() == "45.67.89.101"
        assert len(asked) == 2, "the first question was lost"
        assert await router.map(4001, 600) == 120
        with pytest.raises(GatewayRefused, match="another machine"):
            await router.map(4002, 600)
        assert asked[-1] == encode_map(4002, 0), "the other port is given back"
        with pytest.raises(GatewayRefused, match="owner allows no mapping"):
            await router.map(4003, 600)
        nursery.cancel_scope.cancel()


async def test_a_host_that_does_not_answer_is_no_router() -> None:
    with pytest.raises(GatewayLost):
        await NatPmpGateway("127.0.0.1", 9).wan_address()
