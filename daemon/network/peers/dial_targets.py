"""At which of its addresses a peer may be called now, and who pays for the try (`dialing.py`)."""

from __future__ import annotations

from collections.abc import Iterator

import trio

from daemon.network.addresses import PeerAddress
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.dial_policy import BULK_TRIES_AT_ONCE, TRIED_OF_PEER, DialPolicy, is_free
from daemon.network.peers.live_connections import LiveConnections
from protocol.identity import PeerId
from protocol.ports.endpoint import Endpoint

# Of one endpoint, tried in turn for 5 s each.
MAX_BULK_HOSTS = 4


class DialTargets:
    """What the book and the live connections know, seen through the rules. One of a node."""

    def __init__(
        self, book: AddressBook, links: LiveConnections, places: tuple[PeerAddress, ...]
    ) -> None:
        own = [place.host for place in places]
        self._book, self._links = book, links
        self._policy = DialPolicy(own, self._heard)
        self._bulk_policy = DialPolicy(own, self._heard, BULK_TRIES_AT_ONCE)

    def _heard(self) -> set[str]:
        return self._links.hosts() | {place.host for place in self._book.named()}

    def places(self, peer: PeerId, reasons: list[str]) -> Iterator[tuple[PeerAddress, PeerId]]:
        """The addresses to try, each with whoever pays for it: nobody for those that are free.

        Why others are left out goes to `reasons`.
        """
        entry = self._book.entry_of(peer)
        if entry is None:
            return
        free = [
            place for place in entry.places if is_free(place, place in entry.named, entry.proven)
        ]
        for place in free:
            yield place, ""
        told = 0
        for place in entry.places:
            if place in free:
                continue
            if why := self._policy.why_not(place.host, place.port):
                reasons.append(why)
            elif told >= TRIED_OF_PEER or not self._policy.spend(
                place.host, entry.source, trio.current_time()
            ):
                reasons.append(f"too many addresses led nowhere to try {place.host} now")
                return
            else:
                told += 1
                yield place, entry.source

    def proved(self, place: PeerAddress, source: PeerId) -> None:
        """The peer was at an address that `source` told of."""
        if source:
            self._policy.proved(place.host, source, trio.current_time())

    def _met(self, peer: PeerId) -> list[str]:
        """The hosts at which a peer proved its key."""
        entry = self._book.entry_of(peer)
        return [*self._links.hosts_of(peer), *(entry.proven if entry else ())]

    def bulk_hosts(self, endpoint: Endpoint) -> tuple[str, ...]:
        """Where to call for a bulk stream: hosts that the peer says and where it was met, then what
        else it says, as far as that may be tried, then other hosts where it was met.
        """
        peer, policy, now = endpoint.peer, self._bulk_policy, trio.current_time()
        entry = self._book.entry_of(peer)
        met = self._met(peer)
        named = {place.host for place in entry.named} if entry else set()
        hosts = [host for host in endpoint.hosts if host in met or host in named]
        told = 0
        for host in endpoint.hosts:
            allowed = (
                host not in hosts
                and told < TRIED_OF_PEER
                and not policy.why_not(host, endpoint.port)
            )
            if allowed and policy.spend(host, peer, now):
                hosts.append(host)
                told += 1
        return tuple(dict.fromkeys([*hosts, *met]))[:MAX_BULK_HOSTS]

    def bulk_met(self, peer: PeerId, host: str) -> None:
        """The peer showed its certificate there."""
        # Calls to the others were free, so there is nothing to give back.
        if host not in self._met(peer):
            self._bulk_policy.proved(host, peer, trio.current_time())
        self._book.met(peer, host)
