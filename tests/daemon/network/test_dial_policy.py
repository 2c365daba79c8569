"""Where a node connects because others told it to, and how soon false addresses run out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from daemon.network.peers.dial_policy import (
    PREFIX_TRIES_AT_ONCE,
    SOURCE_TRIES_AT_ONCE,
    TRIES_AT_ONCE,
    TRIES_PER_S,
    DialPolicy,
)

HOME = ("192.168.1.5", "127.0.0.1")
PUBLIC = ("8.8.4.4",)
LOOPBACK = ("127.0.0.1",)


def policy(own: Iterable[str] = HOME, heard: Iterable[str] = ()) -> DialPolicy:
    return DialPolicy(list(own), lambda: heard)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "10.0.0.1",
        "172.16.5.4",
    ],
)
def test_a_stranger_cannot_make_a_node_call_this_host(host: str) -> None:
    assert policy().why_not(host, 4001)


def test_names_and_system_ports_are_not_tried() -> None:
    assert "name" in policy().why_not("victim.example", 4001)
    assert "port" in policy().why_not("8.8.8.8", 22)
    assert not policy().why_not("8.8.8.8", 4001)


def test_a_private_network_is_in_scope_where_this_node_lives_or_hears_a_peer() -> None:
    assert not policy(HOME).why_not("192.168.1.77", 4001), "the same home"
    assert policy(PUBLIC).why_not("192.168.1.77", 4001)
    assert not policy(PUBLIC, heard=["10.1.2.3"]).why_not("10.200.0.1", 4001), (
        "a network of many subnets"
    )
    assert policy(PUBLIC, heard=["10.1.2.3"]).why_not("192.168.1.77", 4001)


def test_a_node_known_on_loopback_alone_calls_others_there() -> None:
    assert not policy(LOOPBACK).why_not("127.0.0.1", 4001)
    assert policy(LOOPBACK).why_not("192.168.1.1", 4001)
    assert policy(LOOPBACK).why_not("169.254.169.254", 8080)


def test_false_addresses_run_out_and_true_ones_cost_nothing() -> None:
    true, false = policy(LOOPBACK), policy(LOOPBACK)
    for _ in range(100):
        assert true.spend("127.0.0.1", "teller", 0.0)
        true.proved("127.0.0.1", "teller", 0.0)
    tried = sum(false.spend("127.0.0.1", f"teller {n % 100}", n / 100) for n in range(100 * 100))
    assert tried <= TRIES_AT_ONCE + TRIES_PER_S * 100


def test_one_source_and_one_prefix_have_fewer_tries_than_all() -> None:
    by_source = policy()
    assert (
        sum(by_source.spend(f"9.9.{n}.1", "teller", 0.0) for n in range(100))
        == SOURCE_TRIES_AT_ONCE
    )
    by_prefix = policy()
    assert (
        sum(by_prefix.spend("9.9.9.9", f"teller {n}", 0.0) for n in range(100))
        == PREFIX_TRIES_AT_ONCE
    )
