"""Tests of two nodes with one key: the younger node ends, and the older node warns."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.config.settings import Config, NetworkConfig, NodeConfig
from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.home.serials import SPREAD_NS, Serials
from daemon.journal import Journal
from daemon.network.addresses import parse_peer_address
from daemon.network.network import LibP2PNetwork
from daemon.network.peers.own_record import KeyObservation
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from daemon.node.duplicate_key import DuplicateKeyDetector
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.journal import JournalEvent, Trouble

pytestmark = pytest.mark.real

SECRET = bytes(range(32))
# It takes 2 s on an idle machine.
LIMIT_S = 60.0


class Holder:
    """The parts of a node that deal with its key."""

    def __init__(
        self, home: Path, secret: bytes, join: tuple[str, ...] = (), later_ns: int = 0
    ) -> None:
        home.mkdir()
        self.recorded: list[JournalEvent] = []
        journal = Journal(None, lambda: 0.0)
        journal.add_listener(self.recorded.append)
        config = Config(
            home=home,
            node=NodeConfig(name="n"),
            network=NetworkConfig(listen_host="127.0.0.1", join=join),
        )
        self.serials = serials = Serials(home / "serials", lambda: time.time_ns() + later_ns)
        certificate = load_or_make(home / BULK_CERTIFICATE_FILE, "n")
        self.detector = DuplicateKeyDetector(config, Signer(secret).peer, serials, journal)
        settings = msgspec.structs.replace(
            network_settings(config), serials=serials.next, on_key_observed=self.detector.saw
        )
        self.network = LibP2PNetwork(settings, secret, certificate)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.network.running():
            yield

    @property
    def troubles(self) -> list[str]:
        return [event.message for event in self.recorded if isinstance(event, Trouble)]


async def message_of_end(holder: Holder) -> str:
    """Wait for the end of a node, and return its message."""
    with trio.fail_after(LIMIT_S), pytest.raises(UserError, match="KEY_IN_USE") as caught:
        await holder.detector.run(holder.network)
    assert caught.value.exit_code == 5
    assert "rm " in caught.value.fix
    return caught.value.what


async def test_the_copy_of_a_node_ends_and_the_older_node_warns(tmp_path: Path) -> None:
    other = Holder(tmp_path / "other", os.urandom(32))
    async with other.running():
        first = Holder(tmp_path / "first", SECRET, other.network.addresses)
        async with first.running(), trio.open_nursery() as nursery:
            nursery.start_soon(first.detector.run, first.network)
            with trio.fail_after(LIMIT_S):
                while first.network.peer not in {link.peer for link in other.network.links()}:
                    await trio.sleep(0.05)
            second = Holder(
                tmp_path / "second", SECRET, other.network.addresses, later_ns=2 * SPREAD_NS
            )
            async with second.running():
                assert f"127.0.0.1:{first.network.port}" in await message_of_end(second)
                with trio.fail_after(LIMIT_S):
                    while not first.troubles:
                        await trio.sleep(0.05)
            assert f"127.0.0.1:{second.network.port}" in first.troubles[0]
            nursery.cancel_scope.cancel()


async def test_a_node_that_joins_another_node_with_its_key_ends(tmp_path: Path) -> None:
    first = Holder(tmp_path / "first", SECRET)
    async with first.running():
        second = Holder(tmp_path / "second", SECRET, first.network.addresses)
        async with second.running():
            assert f"127.0.0.1:{first.network.port}" in await message_of_end(second)


async def test_an_old_address_of_the_node_itself_does_not_end_it(tmp_path: Path) -> None:
    alone = Holder(tmp_path / "alone", SECRET)
    async with alone.running():
        itself = f"/dns4/localhost/tcp/{alone.network.port}/p2p/{alone.network.peer}"
        assert itself not in alone.network.addresses
        with trio.fail_after(LIMIT_S):
            await alone.detector._look_at([itself], alone.network)


async def test_an_address_without_a_node_does_not_end_it(tmp_path: Path) -> None:
    gone = Holder(tmp_path / "gone", SECRET)
    async with gone.running():
        left = gone.network.addresses
    alone = Holder(tmp_path / "alone", SECRET)
    async with alone.running():
        with trio.fail_after(LIMIT_S):
            await alone.detector._look_at(left, alone.network)


async def test_a_later_record_of_a_restored_home_does_not_warn(tmp_path: Path) -> None:
    """The record has this node's own addresses, where no other node can listen."""
    restored = Holder(tmp_path / "restored", SECRET)
    async with restored.running(), trio.open_nursery() as nursery:
        own = tuple(parse_peer_address(address) for address in restored.network.addresses)
        number = time.time_ns() + 3600 * 10**9
        nursery.start_soon(restored.detector.run, restored.network)
        restored.detector.saw(KeyObservation(relation="younger", number=number, addresses=own))
        with trio.fail_after(LIMIT_S):
            while restored.serials.next() <= number:
                await trio.sleep(0.05)
        assert not restored.troubles
        elsewhere = (parse_peer_address(f"/ip4/192.0.2.9/tcp/4001/p2p/{restored.network.peer}"),)
        restored.detector.saw(
            KeyObservation(relation="younger", number=number + 9, addresses=elsewhere)
        )
        with trio.fail_after(LIMIT_S):
            while not restored.troubles:
                await trio.sleep(0.05)
        assert "192.0.2.9:4001" in restored.troubles[0]
        nursery.cancel_scope.cancel()
