"""Nodes in the test's own process."""

from __future__ import annotations

from pathlib import Path

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from tests.ports.network_kit import ECHO, echo


def make_node(home: Path, seed: int, *join: str, bulk: bool = True) -> LibP2PNetwork:
    settings = NetworkSettings(listen_host="127.0.0.1", join=join, bulk=bulk)
    return LibP2PNetwork(
        settings, seed.to_bytes(32, "big"), load_or_make(home / f"bulk-{seed}.pem", f"node {seed}")
    )


def control_port(node: LibP2PNetwork) -> int:
    return int(node.addresses[0].split("/")[4])


async def until_linked(node: LibP2PNetwork, count: int) -> None:
    """Wait for `count` links."""
    changes = node.changes()
    while len(node.links()) < count:
        await anext(changes)


def make_echo_node(home: Path, index: int, join: tuple[str, ...] = ()) -> LibP2PNetwork:
    """A node that sends back what arrives on its bulk streams."""
    node = make_node(home, index + 1, *join)
    node.serve_bulk(ECHO, echo)
    return node
