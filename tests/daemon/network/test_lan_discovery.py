"""Members on one LAN find each other, and announcements of others change nothing."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from zeroconf import ServiceInfo

from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.entry_points import MAX_ON_LAN, EntryPoints
from daemon.network.peers.lan_discovery import (
    SERVICE,
    address_in,
    is_lan_host,
    service_of,
    tag_of,
)
from daemon.network.settings import NetworkSettings
from protocol.identity import Signer
from simulator.harness.netns import missing_for_namespaces, namespaces

RUN, OTHER = b"r" * 32, b"o" * 32
ME, PEER = (Signer(bytes(31) + bytes([n])).peer for n in (1, 2))
TAGS = frozenset({tag_of(RUN)})
HOST = "192.168.1.10"
MAIN = Path(__file__).with_name("lan_node_main.py")
_MISSING = missing_for_namespaces()
# Three announcements a second apart (RFC 6762, section 8.3), and a busy machine.
MET_S = 20.0
STOP_S = 10.0


def test_an_announcement_of_our_run_gives_the_address() -> None:
    info = service_of(PEER, HOST, 4001, tag_of(RUN))
    address = address_in(info, TAGS)
    assert str(address) == f"/ip4/{HOST}/tcp/4001/p2p/{PEER}"
    assert RUN not in b"".join(key + (value or b"") for key, value in info.properties.items())
    assert address_in(service_of(PEER, HOST, 4001, tag_of(OTHER)), TAGS) is None


@pytest.mark.parametrize("host", ["8.8.8.8", "127.0.0.1", "169.254.1.1"])
def test_an_address_that_is_not_on_a_lan_is_left_out(host: str) -> None:
    assert not is_lan_host(host)
    assert address_in(service_of(PEER, host, 4001, tag_of(RUN)), TAGS) is None


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"peer": PEER},
        {"run": tag_of(RUN)},
        {"peer": "x", "run": tag_of(RUN)},
        {"peer": b"\xff\xfe", "run": tag_of(RUN)},
        {"peer": PEER * 3, "run": tag_of(RUN)},
        {"peer": None, "run": None},
    ],
)
def test_garbage_from_the_lan_gives_no_address(properties: dict[str, str]) -> None:
    info = ServiceInfo(
        SERVICE, f"x.{SERVICE}", addresses=[b"\xc0\xa8\x01\x0a"], port=1, properties=properties
    )
    assert address_in(info, TAGS) is None
    bare = ServiceInfo(SERVICE, f"x.{SERVICE}", properties={"peer": PEER, "run": tag_of(RUN)})
    assert address_in(bare, TAGS) is None


def test_what_the_lan_says_is_bounded_and_never_the_users_word() -> None:
    book = AddressBook(ME)
    entries = EntryPoints((), book, NetworkSettings().read_texts, lambda: None)
    for number in range(2, 2 + 3 * MAX_ON_LAN):
        peer = Signer(number.to_bytes(32, "big")).peer
        address = address_in(service_of(peer, HOST, 4001, tag_of(RUN)), TAGS)
        assert address is not None
        entries.learn_from_lan([address])
        assert not book.is_named(peer)
    assert len(entries.peers()) == MAX_ON_LAN
    assert len(book) <= MAX_ON_LAN


@contextmanager
def a_node(prefix: tuple[str, ...], folder: Path, seed: int, run: str) -> Iterator[Path]:
    """Run a node; yields the file of what it printed."""
    said = folder / f"{seed}.said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, sys.executable, str(MAIN), str(folder), str(seed), run],
            stdout=output,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        )
    try:
        yield said
    finally:
        process.terminate()
        try:
            assert process.wait(STOP_S) == 0, "no thread of the library keeps the node alive"
        finally:
            process.kill()


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.skipif(bool(_MISSING), reason=f"no network namespaces here: {_MISSING}")
def test_members_of_one_run_meet_on_a_lan_without_an_entry_point(tmp_path: Path) -> None:
    with namespaces(3, "192.168.77") as lan, ExitStack() as running:
        for member in range(3):
            # As DHCP does it: a LAN's machines have a router, here one that is off.
            lan.run(member, "ip", "route", "add", "default", "via", "192.168.77.1")
        first, second, other = (
            running.enter_context(a_node(lan.prefix(member), tmp_path, member + 1, run))
            for member, run in enumerate(("r", "r", "o"))
        )
        began = time.monotonic()
        peers = [Signer(seed.to_bytes(32, "big")).peer for seed in (1, 2)]
        while peers[1] not in first.read_text() or peers[0] not in second.read_text():
            assert time.monotonic() - began < MET_S, "they did not meet"
            select.select([], [], [], 0.1)
        assert len(other.read_text().splitlines()) <= 1, "a node of another run meets nobody"
