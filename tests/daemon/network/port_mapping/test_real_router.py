"""A real miniupnpd in network namespaces: what it maps, and who can call the node from outside."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.cli.terminal.network_text import network_text
from daemon.network.port_mapping.port_mapper import LEASE_S
from protocol.network.network_report import NetworkReport
from tests.home_router import HOME, HOME_6, WAN, HomeRouter, home_router, missing_for_router

_MISSING = missing_for_router()
pytestmark = [
    pytest.mark.real,
    pytest.mark.alone,
    pytest.mark.skipif(bool(_MISSING), reason=f"no home router here: {_MISSING}"),
]

MAIN = Path(__file__).with_name("mapped_node_main.py")
CONTROL, BULK = 4001, 4002
# The figure of the issue: from the start of the node to a call from outside.
CALLABLE_S = 10.0
# Where no figure is measured.
SAID_S = 40.0
AGAIN_S = 60.0
STOP_S = 10.0
REPORT_S = 15.0


class Node:
    """A node's process at home, and what it said of its mapping."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.began = time.monotonic()

    def until(self, is_so: Callable[[dict[str, Any]], bool], limit_s: float) -> dict[str, Any]:
        """Wait for a line of which `is_so` holds."""
        assert self.process.stdout is not None
        last = "nothing"
        end = time.monotonic() + limit_s
        while (left := end - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0]:
                last = self.process.stdout.readline().decode()
                assert last, "the node ended"
                if is_so(said := json.loads(last)):
                    return said
        raise AssertionError(f"not within {limit_s} s; it said {last}")


@contextmanager
def a_node(
    router: HomeRouter,
    folder: Path,
    where: str = "home",
    seed: int = 1,
    upnp: str = "1",
    join: str = "",
) -> Iterator[Node]:
    given = [str(folder), str(seed), str(CONTROL), str(BULK), upnp, *join.split()]
    process = subprocess.Popen(
        [*router.prefix(where), sys.executable, str(MAIN), *given],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])},
        bufsize=0,
    )
    try:
        yield Node(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def report_of(node: Node) -> NetworkReport:
    """What the node's doctor says, and that it says so in time."""
    began = time.monotonic()
    node.process.send_signal(signal.SIGUSR1)
    said = node.until(lambda said: said["state"] == "report", REPORT_S)
    assert time.monotonic() - began < REPORT_S
    return msgspec.convert(said["report"], NetworkReport)


def can_call(router: HomeRouter, port: int, host: str = "") -> bool:
    """Whether a TCP connection from outside to a port of the router, or of `host`, comes about."""
    target = host or router.wan
    program = f"import socket; socket.create_connection(('{target}', {port}), 1.0)"
    done = subprocess.run(
        [*router.prefix("outside"), sys.executable, "-c", program],
        capture_output=True,
        timeout=10,
        check=False,
    )
    return not done.returncode


def test_a_node_at_home_is_called_from_outside_until_it_stops(tmp_path: Path) -> None:
    with home_router(tmp_path) as router:
        router.start()
        with a_node(router, tmp_path) as node:
            said = node.until(lambda said: said["state"] == "mapped", CALLABLE_S)
            assert can_call(router, CONTROL)
            assert can_call(router, BULK)
            assert time.monotonic() - node.began < CALLABLE_S
            assert said["protocol"] == "UPnP"
            assert said["addresses"][0].startswith(f"/ip4/{WAN}/tcp/{CONTROL}/")
            assert said["hosts"][0] == WAN
            assert not can_call(router, 4003), "nothing but the two ports is open"
            node.process.terminate()
            assert node.process.wait(STOP_S) == 0
        assert "dnat" not in router.mappings(), "removed on stop"
        assert not can_call(router, CONTROL)


def test_a_router_that_restarts_maps_again_and_nat_pmp_alone_is_enough(tmp_path: Path) -> None:
    with home_router(tmp_path) as router:
        router.start("enable_upnp=no")
        with a_node(router, tmp_path) as node:
            said = node.until(lambda said: said["state"] == "mapped", SAID_S)
            assert said["protocol"] == "NAT-PMP"
            assert can_call(router, CONTROL)
            router.stop()
            router.start()
            assert "dnat" not in router.mappings(), "it forgot"
            restarted = time.monotonic()
            while not (can_call(router, CONTROL) and can_call(router, BULK)):
                assert time.monotonic() - restarted < AGAIN_S
                time.sleep(0.5)


@pytest.mark.parametrize("wan", ["100.64.7.101", "192.168.77.101"])
def test_a_router_behind_another_one_is_named_and_not_advertised(tmp_path: Path, wan: str) -> None:
    """This miniupnpd does not name its address then, and maps nothing."""
    with home_router(tmp_path, wan) as router:
        router.start()
        with a_node(router, tmp_path) as node:
            said = node.until(lambda said: said["state"] not in ("searching", "none"), SAID_S)
            assert said["state"] == "double_nat", router.log()
            assert "another router" in said["reason"]
            assert not any(wan in address for address in said["addresses"])
            assert "dnat" not in router.mappings()


def test_the_doctor_names_the_router_and_the_ports(tmp_path: Path) -> None:
    with home_router(tmp_path) as router, a_node(router, tmp_path, "outside", 2, "0") as outside:
        said = outside.until(lambda said: True, SAID_S)
        entry = said["addresses"][0]
        with a_node(router, tmp_path, upnp="0", join=entry) as closed:
            closed.until(lambda said: said["links"] == 1, SAID_S)
            report = report_of(closed)
            assert report.verdict == "only_by_relay"
            assert (report.control.open, report.bulk.open) == (False, False)
            assert (report.ipv4.local, report.ipv4.observed) == ((HOME,), WAN)
            assert report.ipv6.callable is None
            assert (report.nat, report.mapping.state) == ("cone", "off")
            assert f"TCP ports {CONTROL} and {BULK} to {HOME}" in report.remedy
            assert report.only_443 is False
            assert len(report.peers) == 1
        router.start()
        with a_node(router, tmp_path, join=entry) as mapped:
            mapped.until(lambda said: said["state"] == "mapped" and said["links"] == 1, SAID_S)
            report = report_of(mapped)
            assert (report.verdict, report.remedy) == ("callable", "")
            assert (report.control.open, report.bulk.open) == (True, True)
            assert (report.mapping.protocol, report.mapping.wan) == ("UPnP", WAN)
            assert report.mapping.lease_left_s is not None
            assert 0 < report.mapping.lease_left_s <= LEASE_S
            assert "Others can call you." in network_text(report, {}, color=False)


def test_a_node_with_ipv6_is_called_through_pinholes_until_it_stops(tmp_path: Path) -> None:
    with home_router(tmp_path) as router:
        router.give_ipv6()
        router.start()
        with a_node(router, tmp_path) as node:
            assert not can_call(router, CONTROL, HOME_6)
            node.until(lambda said: said["pinholes"] == "mapped", SAID_S)
            assert can_call(router, CONTROL, HOME_6)
            assert can_call(router, BULK, HOME_6)
            assert not can_call(router, 4003, HOME_6), "nothing but the two ports is open"
            node.process.terminate()
            assert node.process.wait(STOP_S) == 0
        assert HOME_6 not in router.pinholes(), "removed on stop"


@pytest.mark.slow
def test_the_mapping_of_a_killed_node_ends_with_its_lease(tmp_path: Path) -> None:
    """With a lease of two minutes in place of half an hour."""
    with home_router(tmp_path) as router:
        router.start()
        process = subprocess.Popen(
            [*router.prefix("home"), sys.executable, "-c", _LEASE_OF_TWO_MINUTES],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])},
        )
        try:
            end = time.monotonic() + SAID_S
            while "dnat" not in router.mappings():
                assert time.monotonic() < end
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
        assert "dnat" in router.mappings(), "a killed node removes nothing"
        end = time.monotonic() + 150.0
        while "dnat" in router.mappings():
            assert time.monotonic() < end
            time.sleep(1.0)


_LEASE_OF_TWO_MINUTES = """
import trio
from daemon.network.port_mapping.port_mapper import PortMapper
trio.run(PortMapper([4001], print, lease_s=120).run)
"""
