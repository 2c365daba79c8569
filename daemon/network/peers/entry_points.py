"""The addresses to join, and the names in DNS that stand for such addresses.

Names are looked up while the network runs, again and again: soon after a failure, and seldom
otherwise. The addresses behind a name count as addresses that the user gave.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from daemon.network.addresses import PeerAddress, parse_join_address
from daemon.network.dns_addresses import ReadTexts, find_addresses, is_dnsaddr
from daemon.network.peers.address_book import AddressBook
from protocol.errors import Unreachable
from protocol.identity import PeerId

_log = logging.getLogger(__name__)

# The pause after the first failure, and the longest one. It doubles with each failure.
FAILED_S = (2.0, 60.0)
# Between look-ups of a name that answers. Records are usually valid for an hour or less.
AGAIN_S = 600.0

# Names the LAN where the address book asks who named a peer.
LAN_SOURCE = "lan"
# Anybody on the LAN can announce any number of peers.
MAX_ON_LAN = 32


class EntryPoints:
    """Names the peers to join in the address book."""

    def __init__(
        self,
        join: Iterable[str],
        book: AddressBook,
        read_texts: ReadTexts,
        on_new: Callable[[], None],
    ) -> None:
        """
        Args:
            join: Multiaddrs, and entry points of the kind /dnsaddr/NAME.
            on_new: Called when a name gave an address that was not known.

        Raises:
            UserError: "JOIN" for a malformed address.
        """
        given = tuple(join)
        self._names = tuple(text for text in given if is_dnsaddr(text))
        self._book = book
        self._read_texts = read_texts
        self._on_new = on_new
        book.name([parse_join_address(text) for text in given if not is_dnsaddr(text)])
        # Members of the wanted run that announced themselves on the LAN.
        self._on_lan: dict[PeerId, None] = {}
        # Why the last look-up of a name failed, for those that did.
        self.faults: dict[str, str] = {}

    def peers(self) -> tuple[PeerId, ...]:
        """The peers to join, those behind names and on the LAN as they are found."""
        return tuple(
            dict.fromkeys((*(address.peer for address in self._book.named()), *self._on_lan))
        )

    def learn_from_lan(self, addresses: list[PeerAddress]) -> None:
        """Note members that announced themselves on the LAN. They are hints as any other."""
        if self._book.hint(addresses, LAN_SOURCE):
            self._on_new()
        for address in addresses:
            if address.peer in self._book and len(self._on_lan) < MAX_ON_LAN:
                self._on_lan[address.peer] = None

    async def run(self) -> None:
        """Look up every name, until cancelled."""
        async with trio.open_nursery() as nursery:
            for name in self._names:
                nursery.start_soon(self._keep, name)

    async def _keep(self, name: str) -> None:
        pause = FAILED_S[0]
        while True:
            try:
                addresses = await find_addresses(name, self._read_texts)
            except Unreachable as error:
                if self.faults.get(name) != str(error):
                    _log.warning("The entry point %s gives no address: %s", name, error)
                self.faults[name] = str(error)
                await trio.sleep(pause)
                pause = min(2 * pause, FAILED_S[1])
            else:
                self.faults.pop(name, None)
                if self._book.name(addresses):
                    self._on_new()
                pause = FAILED_S[0]
                await trio.sleep(AGAIN_S)
