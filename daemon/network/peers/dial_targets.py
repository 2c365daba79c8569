"""The addresses at which a peer may be called now, and which source pays for each try."""

from __future__ import annotations

from collections.abc import Iterator

import trio

from daemon.network.addresses import PeerAddress
from daemon.network.peers.address_book import AddressBook
from daemon.network.peers.dial_policy import (
    BULK_TRIES_AT_ONCE,
    TRIED_OF_PEER,
    DialPolicy,
    is_free,
)
from daemon.network.peers.live_connections import LiveConnections
from protocol.identity import PeerId
from protocol.ports.endpoint import Endpoint

# Hosts of one endpoint, tried one after the other for 5 s each.
MAX_BULK_HOSTS = 4


class DialTargets:
    """Applies the dial policy to what the address book and the live connections know."""

    def __init__(
        self,
        book: AddressBook,
        connections: LiveConnections,
        own_addresses: tuple[PeerAddress, ...],
    ) -> None:
        own_hosts = [address.host for address in own_addresses]
        self._book, self._connections = book, connections
        self._policy = DialPolicy(own_hosts, self._heard_hosts)
        self._bulk_policy = DialPolicy(own_hosts, self._heard_hosts, BULK_TRIES_AT_ONCE)

    def _heard_hosts(self) -> set[str]:
        return self._connections.hosts() | {address.host for address in self._book.named()}

    def to_dial(self, peer: PeerId, reasons: list[str]) -> Iterator[tuple[PeerAddress, PeerId]]:
        """The addresses to try, each with the source that pays for it.

        The source of a free address is empty. Why an address is left out goes to `reasons`.
        """
        entry = self._book.entry_of(peer)
        if entry is None:
            return
        free = [
            address
            for address in entry.addresses
            if is_free(address, address in entry.named, entry.proven)
        ]
        for address in free:
            yield address, ""
        unproven = 0
        for address in entry.addresses:
            if address in free:
                continue
            if why := self._policy.why_not(address.host, address.port):
                reasons.append(why)
            elif unproven >= TRIED_OF_PEER or not self._policy.spend(
                address.host, entry.source, trio.current_time()
            ):
                reasons.append(f"too many addresses led nowhere to try {address.host} now")
                return
            else:
                unproven += 1
                yield address, entry.source

    def proved(self, address: PeerAddress, source: PeerId) -> None:
        """Give back what the try cost, since the peer proved its key at this address."""
        if source:
            self._policy.proved(address.host, source, trio.current_time())

    def _met_at(self, peer: PeerId) -> list[str]:
        """The hosts at which a peer proved its key."""
        entry = self._book.entry_of(peer)
        return [*self._connections.hosts_of(peer), *(entry.proven if entry else ())]

    def bulk_hosts(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The hosts to call for a bulk stream, best first.

        First come hosts of the endpoint at which the peer was met, then its other hosts as far as
        the policy allows, then other hosts at which the peer was met.
        """
        peer, policy, now = endpoint.peer, self._bulk_policy, trio.current_time()
        entry = self._book.entry_of(peer)
        met = self._met_at(peer)
        named = {address.host for address in entry.named} if entry else set()
        hosts = [host for host in endpoint.hosts if host in met or host in named]
        unproven = 0
        for host in endpoint.hosts:
            allowed = (
                host not in hosts
                and unproven < TRIED_OF_PEER
                and not policy.why_not(host, endpoint.port)
            )
            if allowed and policy.spend(host, peer, now):
                hosts.append(host)
                unproven += 1
        return tuple(dict.fromkeys([*hosts, *met]))[:MAX_BULK_HOSTS]

    def met_for_bulk(self, peer: PeerId, host: str) -> None:
        """Note that the peer showed its certificate at `host`."""
        # Hosts at which the peer was met before cost nothing, so nothing is given back for them.
        if host not in self._met_at(peer):
            self._bulk_policy.proved(host, peer, trio.current_time())
        self._book.met(peer, host)
