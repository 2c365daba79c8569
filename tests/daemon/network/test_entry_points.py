"""Several ways into a swarm: addresses, names in DNS, and what happens while they fail."""

from __future__ import annotations

from pathlib import Path

import dns.asyncresolver
import pytest
import trio
from trio.testing import MockClock

from daemon.network.dns_addresses import (
    MAX_ADDRESSES,
    MAX_NAMES,
    ask_resolver,
    find_addresses,
    is_dnsaddr,
)
from daemon.network.network import LibP2PNetwork
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.entry_points import AGAIN_S, FAILED_S, EntryPoints
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from protocol.errors import Unreachable, UserError
from protocol.identity import Signer
from tests.daemon.network.dns_server import dns_server
from tests.daemon.network.nodes import make_node, until_linked

PEERS = [Signer(bytes(31) + bytes([n])).peer for n in range(1, 4)]
ADDRESSES = [f"/ip4/9.9.9.{n}/tcp/4001/p2p/{peer}" for n, peer in enumerate(PEERS)]
TIMEOUT_S = 30.0


def table(**texts: list[str]) -> dict[str, list[str]]:
    """TXT records by the name that /dnsaddr/NAME asks for."""
    return {f"_dnsaddr.{name}.example": lines for name, lines in texts.items()}


class FakeDns:
    """Answers from a table, and counts the questions."""

    def __init__(self, texts: dict[str, list[str]]) -> None:
        self.texts = texts
        self.asked: list[str] = []

    async def __call__(self, name: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.asked.append(name)
        if name not in self.texts:
            raise Unreachable(f"DNS has no TXT record of {name}")
        return self.texts[name]


async def found(texts: dict[str, list[str]], name: str = "/dnsaddr/a.example") -> list[str]:
    return [str(address) for address in await find_addresses(name, FakeDns(texts))]


async def test_a_name_gives_its_addresses_and_those_of_further_names() -> None:
    texts = table(
        a=[f"dnsaddr={ADDRESSES[0]}", "dnsaddr=/dnsaddr/b.example", "v=spf1 -all"],
        b=[f"dnsaddr={ADDRESSES[1]}", "dnsaddr=/ip4/9.9.9.9/udp/1/quic", "dnsaddr=/x"],
    )
    assert await found(texts) == ADDRESSES[:2]
    of_one = await found(texts, f"/dnsaddr/b.example/p2p/{PEERS[1]}")
    assert of_one == [ADDRESSES[1]]
    with pytest.raises(Unreachable, match="no address of a node"):
        await found(texts, f"/dnsaddr/b.example/p2p/{PEERS[2]}")


async def test_a_further_name_that_fails_hides_nothing_and_the_first_one_is_named() -> None:
    texts = table(a=["dnsaddr=/dnsaddr/gone.example", f"dnsaddr={ADDRESSES[0]}"])
    assert await found(texts) == ADDRESSES[:1]
    with pytest.raises(Unreachable, match=r"_dnsaddr\.gone\.example"):
        await found(texts, "/dnsaddr/gone.example")


async def test_records_without_end_are_cut() -> None:
    loop = FakeDns(table(a=["dnsaddr=/dnsaddr/a.example", f"dnsaddr={ADDRESSES[0]}"]))
    assert len(await find_addresses("/dnsaddr/a.example", loop)) == 1
    assert len(loop.asked) == 1
    many = FakeDns(
        table(
            a=[f"dnsaddr=/dnsaddr/n{n}.example" for n in range(100)],
            n0=[f"dnsaddr=/ip4/9.9.{n // 250}.{n % 250}/tcp/1/p2p/{PEERS[0]}" for n in range(999)],
        )
    )
    assert len(await find_addresses("/dnsaddr/a.example", many)) == MAX_ADDRESSES
    assert len(many.asked) == MAX_NAMES


@pytest.mark.parametrize(
    "text", ["/dnsaddr/", "/dnsaddr/a b", "/dnsaddr/a/tcp/1", "/dnsaddr/a/p2p/", ADDRESSES[0]]
)
def test_other_texts_are_no_names(text: str) -> None:
    assert not is_dnsaddr(text)


async def test_a_name_that_fails_is_looked_up_again_later_each_time(
    autojump_clock: MockClock,
) -> None:
    server = FakeDns({})
    book, changes = AddressBook(PEERS[2]), []
    entries = EntryPoints(
        (ADDRESSES[0], "/dnsaddr/a.example"), book, server, lambda: changes.append(1)
    )
    assert entries.peers() == (PEERS[0],)
    with trio.move_on_after(1000.0):
        await entries.run()
    # 2 + 4 + 8 + 16 + 32 + 60 + 60 ...
    assert len(server.asked) == pytest.approx(6 + (1000 - 62) / FAILED_S[1], abs=1)
    assert "_dnsaddr.a.example" in entries.faults["/dnsaddr/a.example"]
    server.texts = table(a=[f"dnsaddr={ADDRESSES[1]}"])
    asked = len(server.asked)
    with trio.move_on_after(AGAIN_S + 1.0):
        await entries.run()
    assert (entries.peers(), entries.faults) == ((PEERS[0], PEERS[1]), {})
    assert len(server.asked) == asked + 2
    assert changes == [1], "what is known already changes nothing"


def test_a_malformed_entry_point_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="not an address to join"):
        EntryPoints(("/dnsaddr/a/tcp/1",), AddressBook(PEERS[0]), FakeDns({}), lambda: None)


@pytest.mark.real
async def test_a_node_joins_through_a_name_in_dns(tmp_path: Path) -> None:
    first = make_node(tmp_path, 1)
    with trio.fail_after(TIMEOUT_S):
        async with (
            first.running(),
            dns_server(table(swarm=[f"dnsaddr={first.addresses[0]}"])) as port,
        ):
            resolver = dns.asyncresolver.Resolver(configure=False)
            resolver.nameservers, resolver.port = ["127.0.0.1"], port

            async def read(name: str) -> list[str]:
                return await ask_resolver(resolver, name)

            with pytest.raises(Unreachable, match="no TXT record"):
                await find_addresses("/dnsaddr/other.example", read)
            settings = NetworkSettings(
                listen_host="127.0.0.1", join=("/dnsaddr/swarm.example",), read_texts=read
            )
            certificate = load_or_make(tmp_path / "bulk.pem", "second")
            second = LibP2PNetwork(settings, bytes(31) + b"\x02", certificate)
            async with second.running():
                await until_linked(second, 1)
                assert second.links()[0].peer == first.peer
