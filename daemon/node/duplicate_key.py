"""Detects another running node with this node's key, as after a home was copied.

Two nodes with one key contradict each other in the swarm. The node that started later ends, and
says what to do. The other one continues, and its status says so. Sightings come from signed records
(`daemon/network/peers/own_record.py`). The detector then calls the address: another node that
answers there with this node's key uses the key now.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
import trio

from daemon.config.settings import Config
from daemon.home.layout import BULK_CERTIFICATE_FILE, KEY_FILE
from daemon.home.node_key import KEY_EXIT_CODE
from daemon.home.serials import Serials
from daemon.journal import Journal
from daemon.network.network import LibP2PNetwork
from daemon.network.peers.own_record import RANGE_NUMBERS, KeyObservation
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import network_settings
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.journal import Trouble

CODE = "KEY_IN_USE"
# The timeout of a call. A node behind a router does not answer.
PROBE_S = 5.0
# How long this node takes to see the other end of a call to itself.
SELF_S = 1.0
# Neighbours forward the record of a node for this long after it is gone.
FORGET_S = 600.0
MOST_WAITING = 16


class DuplicateKeyDetector:
    """Gets sightings of this node's key from the network, and acts on them in `run`."""

    def __init__(self, config: Config, peer: PeerId, serials: Serials, journal: Journal) -> None:
        self._config, self._peer, self._serials, self._journal = config, peer, serials, journal
        self._send, self._heard = trio.open_memory_channel[KeyObservation](MOST_WAITING)

    def saw(self, sighting: KeyObservation) -> None:
        """Queue a sighting. Never blocks: a full queue drops it, and the record comes again."""
        try:
            self._send.send_nowait(sighting)
        except trio.WouldBlock:
            return

    async def run(self, network: LibP2PNetwork) -> None:
        """Act on sightings until cancelled. The network must be running.

        Raises `UserError("KEY_IN_USE")` where a node with this key was started earlier.
        """
        named = [
            address
            for address in self._config.network.join
            if address.endswith(f"/p2p/{self._peer}")
        ]
        await self._look_at(named, network)
        troubled = False
        while True:
            with trio.move_on_after(FORGET_S if troubled else float("inf")) as quiet:
                sighting = await self._heard.receive()
            if quiet.cancelled_caught:
                troubled = False
                self._journal.record(Trouble(code=CODE, level="bad", message=""))
                continue
            where = [str(address) for address in sighting.addresses]
            if sighting.relation == "answered":
                raise self._in_use(where)
            if sighting.relation == "earlier":
                await self._look_at(where, network)
                continue
            # This node's next records must have greater numbers than those of the later start.
            self._serials.passed(sighting.number + RANGE_NUMBERS)
            if where and not self._elsewhere(where, network):
                # This home was restored from a backup. The record is its own, from before the
                # restore: no other node can listen at this node's address.
                continue
            troubled = True
            self._journal.record(
                Trouble(
                    code=CODE,
                    level="bad",
                    message=f"Another node was started with this node's key, at {_shown(where)}. It"
                    " ends when it notices this one. If this home is the copy: hypergpud stop, rm"
                    f" {self._config.home / KEY_FILE}, then start again",
                )
            )

    async def _look_at(self, addresses: Sequence[str], network: LibP2PNetwork) -> None:
        """Raise `UserError` where another node answers at an address with this node's key."""
        others = self._elsewhere(addresses, network)
        if others and await self._answers(others, network):
            raise self._in_use(others)

    def _elsewhere(self, addresses: Sequence[str], network: LibP2PNetwork) -> list[str]:
        """Return the addresses that are not this node's own."""
        return [address for address in addresses if address not in network.addresses]

    async def _answers(self, addresses: Sequence[str], network: LibP2PNetwork) -> bool:
        """Return whether another node answers at one of the addresses with this node's key.

        The call uses a new key, so that this node recognizes a call to itself: an old address may
        lead to this node.
        """
        settings = network_settings(self._config, bulk=False)
        settings = msgspec.structs.replace(
            settings, listen_port=0, join=tuple(addresses), min_connections=1
        )
        certificate = load_or_make(
            self._config.home / BULK_CERTIFICATE_FILE, self._config.node.name
        )
        probe = LibP2PNetwork(settings, os.urandom(32), certificate)
        async with probe.running():
            with trio.move_on_after(PROBE_S):
                async for change in probe.changes():
                    if change.up and change.peer == self._peer:
                        break
            if not any(link.peer == self._peer for link in probe.links()):
                return False
            with trio.move_on_after(SELF_S):
                async for change in network.changes():
                    if change.up and change.peer == probe.peer:
                        return False
            return True

    def _in_use(self, where: Sequence[str]) -> UserError:
        return UserError(
            CODE,
            f"Another node runs with this node's key, at {_shown(where)}, and was started before"
            " this one.",
            why="two nodes with one key contradict each other in the swarm, so this one ends",
            fix="give a copy of a home a key of its own:"
            f" rm {self._config.home / KEY_FILE}, then start again;"
            " to move a node, stop the other one first",
            exit_code=KEY_EXIT_CODE,
        )


def _shown(addresses: Sequence[str]) -> str:
    """Show the first two multiaddrs as HOST:PORT."""

    shown = [":".join(address.split("/")[2:5:2]) for address in addresses[:2]]
    return " or ".join(shown) or "an unknown address"
