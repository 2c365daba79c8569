"""Multiaddrs of both families, and what passes the rules of neither."""

from __future__ import annotations

import pytest

from daemon.network.addresses import PeerAddress, advertised_hosts, parse_peer_address, plain_host
from daemon.network.peers.dial_policy import DialPolicy
from daemon.network.peers.own_record import OwnRecord
from daemon.network.peers.peer_record import check_record, read_record, seal_record
from daemon.network.settings import NetworkSettings
from protocol.errors import PeerFault
from protocol.identity import Signer

ME = Signer(bytes(31) + b"\x01")
PEER = ME.peer
GLOBAL = "2a01:4f8::7"


@pytest.mark.parametrize(
    "address", [f"/ip6/{GLOBAL}/tcp/4001", "/dns6/home.example/tcp/443", "/dns/home.example/tcp/1"]
)
def test_addresses_of_ipv6_and_of_names_are_parsed_and_written_alike(address: str) -> None:
    assert str(parse_peer_address(f"{address}/p2p/{PEER}")) == f"{address}/p2p/{PEER}"


def test_an_ipv6_address_has_one_writing() -> None:
    parsed = parse_peer_address(f"/ip6/2A01:04f8:0:0::7/tcp/1/p2p/{PEER}")
    assert parsed.host == GLOBAL


@pytest.mark.parametrize(
    "host", ["::ffff:127.0.0.1", "fe80::1%eth0", "127.0.0.1", "x", "", "1::2::3", "[::1]"]
)
def test_a_host_that_is_no_plain_ipv6_address_is_refused(host: str) -> None:
    with pytest.raises(PeerFault):
        parse_peer_address(f"/ip6/{host}/tcp/4001/p2p/{PEER}")


@pytest.mark.parametrize(
    "host",
    [
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "2001:0:1::1",
        "fd00::1",
        "100::1",
    ],
)
def test_a_stranger_cannot_make_a_node_call_this_ipv6_host(host: str) -> None:
    assert DialPolicy([GLOBAL, "192.168.1.5"], list).why_not(host, 4001)


def test_ipv6_networks_are_in_scope_as_those_of_ipv4_are() -> None:
    public = DialPolicy([GLOBAL], list)
    assert not public.why_not("2a00:1450::1", 4001)
    assert not public.why_not("2a00:1450::1", 443), "the port that every firewall lets out"
    assert public.why_not("2a00:1450::1", 80)
    assert not DialPolicy(["fd12::5"], list).why_not("fd12::77", 4001), "the same home"
    assert not DialPolicy([GLOBAL], lambda: ["fd12::5"]).why_not("fd99::1", 4001)
    assert not DialPolicy(["::1"], list).why_not("::1", 4001), "known on loopback alone"


def test_a_record_with_an_address_of_an_unknown_kind_keeps_the_others() -> None:
    known, later = PeerAddress("ip6", GLOBAL, 4001, PEER), PeerAddress("quic", "x", 1, PEER)
    signed = seal_record(ME, [later, known], [], 1)
    assert check_record(signed, read_record(signed)) == (known,)


def test_a_run_that_earlier_releases_know_gets_no_ipv6_address() -> None:
    """Such a release refuses the whole record, and every record behind it."""
    addresses = [PeerAddress("ip6", GLOBAL, 4001, PEER), PeerAddress("ip4", "9.9.9.9", 4001, PEER)]

    def published(settings: NetworkSettings) -> tuple[str, ...]:
        kept = [one for one in addresses if one.kind in settings.published_kinds]
        own = OwnRecord(ME, kept, lambda: 1, lambda _observed: None)
        return read_record(own.sealed(frozenset())).addresses

    assert len(published(NetworkSettings())) == 2
    assert published(NetworkSettings(earlier_releases=True)) == (str(addresses[1]),)


def test_what_is_configured_is_handed_out_and_a_wildcard_ends_with_loopback() -> None:
    assert advertised_hosts("::", ("/dns6/a.example", "9.9.9.9")) == ("/dns6/a.example", "9.9.9.9")
    assert PeerAddress.of_host("/dns6/a.example", 1, PEER).transport == "/dns6/a.example/tcp/1"
    assert advertised_hosts("::1", ()) == ("::1",)
    assert advertised_hosts("::", ())[-1] == "127.0.0.1"
    assert not any(":" in host for host in advertised_hosts("0.0.0.0", ()))


def test_an_ipv4_peer_of_a_socket_for_both_families_has_its_plain_host() -> None:
    assert plain_host("::ffff:9.9.9.9") == "9.9.9.9"
    assert plain_host("::ffff:1") == "::ffff:1"
    assert plain_host(GLOBAL) == GLOBAL
