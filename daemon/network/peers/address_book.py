"""The address book: what this node knows of other peers and where they are.

A signed record is believed because its peer signed it. A hint (a join address, a provider's
address) only says where to try. Only members that were connected to this node within `FRESH_S` are
handed on, so that dead peers disappear from the memory of the swarm.

Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable

from daemon.network.addresses import PeerAddress
from daemon.network.peers.address_entry import NEVER, AddressEntry
from daemon.network.peers.peer_record import (
    MAX_ADDRESSES,
    SignedPeerRecord,
    check_record,
    read_record,
)
from protocol.identity import PeerId

MAX_ENTRIES = 1024
# Hosts at which one peer was met.
MAX_PROVEN = 4
# Peers that one source named and that this node never met. One exchange brings as many.
MAX_OF_SOURCE = 32
# Addresses of one peer that the next start of this node remembers. They are called again and
# again, so a peer must not be able to name many.
REMEMBERED_ADDRESSES = 2
# The pause after the first failed dial, and the longest pause. It doubles with each failure.
BACKOFF_S = (1.0, 60.0)
# Join addresses are how a node comes back that lost every peer, so their pause stays short.
MAX_JOIN_BACKOFF_S = 10.0
# Failures in a row after which a peer is forgotten, about two minutes.
FORGET_AFTER_FAILURES = 6
# When two peers learn of each other at once, the one with the greater id waits this long for the
# other one's call.
YIELD_S = 0.5


class AddressBook:
    """Entries of other peers; never more than `MAX_ENTRIES`."""

    def __init__(self, own: PeerId, join: Iterable[PeerAddress] = ()) -> None:
        self._own = own
        self._entries: dict[PeerId, AddressEntry] = {}
        self.name(join)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(self, peer: PeerId, source: PeerId = "") -> AddressEntry:
        entry = self._entries.get(peer)
        if entry is None:
            if source:
                self._make_room_of(source)
            if len(self._entries) >= MAX_ENTRIES:
                self._drop_least_useful()
            entry = self._entries[peer] = AddressEntry(peer, source)
        return entry

    def _drop_least_useful(self) -> None:
        strangers = (entry for entry in self._entries.values() if not entry.join)
        least = min(strangers, key=lambda entry: (entry.connected_at, -entry.failures))
        del self._entries[least.peer]

    def _make_room_of(self, source: PeerId) -> None:
        """Keep the entries of one source within their share.

        The oldest entry that this node never met makes room.
        """
        unmet = [
            entry
            for entry in self._entries.values()
            if entry.source == source and entry.connected_at == NEVER
        ]
        if len(unmet) >= MAX_OF_SOURCE:
            del self._entries[unmet[0].peer]

    # ---------------------------------------------------------------------------------- lookup

    def entry_of(self, peer: PeerId) -> AddressEntry | None:
        """What is known of a peer. The caller must not change the entry."""
        return self._entries.get(peer)

    def addresses_of(self, peer: PeerId) -> list[PeerAddress]:
        entry = self._entries.get(peer)
        return list(entry.addresses) if entry else []

    def is_named(self, peer: PeerId) -> bool:
        """Whether the user gave an address of this peer."""
        entry = self._entries.get(peer)
        return entry is not None and entry.join

    def named(self) -> list[PeerAddress]:
        """The addresses that the user gave, in the order of their peers."""
        return [address for entry in self._entries.values() for address in entry.named]

    def record_of(self, peer: PeerId) -> SignedPeerRecord | None:
        """The last record that the peer signed."""
        entry = self._entries.get(peer)
        return entry.signed if entry else None

    # ---------------------------------------------------------------------------------- changes

    def name(self, addresses: Iterable[PeerAddress]) -> bool:
        """Note addresses that the user gave, or that a name gave which the user gave.

        Returns:
            Whether one of them is new to us.
        """
        new = False
        for address in addresses:
            if address.peer == self._own:
                continue
            entry = self._entry(address.peer)
            entry.join = True
            if address not in entry.named:
                new = True
                entry.named |= {address}
            if address not in entry.addresses:
                entry.addresses.append(address)
        return new

    def hint(self, addresses: Iterable[PeerAddress], source: PeerId) -> bool:
        """Note addresses that another peer gave. They are tried after the peer's own.

        Returns:
            Whether a peer is new to us.
        """
        new = False
        for address in addresses:
            if address.peer == self._own:
                continue
            new = new or address.peer not in self._entries
            entry = self._entry(address.peer, source)
            if address not in entry.addresses and len(entry.addresses) < MAX_ADDRESSES:
                entry.addresses.append(address)
        return new

    def learn(self, signed: SignedPeerRecord, now: float, source: PeerId) -> bool:
        """Note a record that `source` handed us.

        Returns:
            Whether its peer is new to us.

        Raises:
            PeerFault: For a record that is malformed or not signed by its peer.
        """
        record = read_record(signed)
        known = self._entries.get(record.peer)
        if record.peer == self._own or (known is not None and known.seq >= record.seq):
            # Most records from neighbours are known, so their signature is not checked.
            return False
        addresses = check_record(signed, record)
        entry = self._entry(record.peer, source)
        entry.signed, entry.seq, entry.keys = signed, record.seq, frozenset(record.keys)
        joins = [one for one in entry.addresses if entry.join and one not in addresses]
        entry.addresses = [*addresses, *joins][: MAX_ADDRESSES + len(joins)]
        if known is None and self._own > record.peer:
            entry.not_before = now + YIELD_S
        return known is None

    def connected(self, peer: PeerId, now: float, host: str = "") -> None:
        """Note that the peer proved its key at `host`."""
        entry = self._entry(peer)
        entry.connected_at, entry.failures, entry.not_before = now, 0, NEVER
        self.met(peer, host)

    def met(self, peer: PeerId, host: str) -> None:
        """Note that a known peer proved its key at `host`."""
        entry = self._entries.get(peer)
        if entry is not None and host:
            entry.proven = [host, *(known for known in entry.proven if known != host)][:MAX_PROVEN]

    def postpone(self, peer: PeerId, until_s: float) -> None:
        """Note that the peer cannot be tried yet. This is no failure of the peer."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.not_before = max(entry.not_before, until_s)

    def lost(self, peer: PeerId, now: float) -> None:
        """Note that the connection broke. Both sides know, and one of them should call first."""
        entry = self._entries.get(peer)
        if entry is not None and self._own > peer:
            entry.not_before = now + YIELD_S

    def failed(self, peer: PeerId, now: float) -> None:
        """Note a failed dial: wait longer each time, and forget the peer after many."""
        entry = self._entries.get(peer)
        if entry is None:
            return
        entry.failures += 1
        most = MAX_JOIN_BACKOFF_S if entry.join else BACKOFF_S[1]
        entry.not_before = now + min(most, BACKOFF_S[0] * 2 ** (entry.failures - 1))
        if entry.failures >= FORGET_AFTER_FAILURES and not entry.join:
            del self._entries[peer]

    # ---------------------------------------------------------------------------------- choices

    def to_dial(self, connected: set[PeerId], keys: frozenset[bytes], now: float) -> list[PeerId]:
        """The peers to try now, best first.

        Peers with few failures come first. Members of other runs come last.
        """
        ready = [
            entry
            for entry in self._entries.values()
            if entry.addresses and entry.peer not in connected and entry.not_before <= now
        ]
        ready.sort(
            key=lambda entry: (
                not entry.may_provide(keys),
                entry.failures,
                -entry.connected_at,
            )
        )
        return [entry.peer for entry in ready]

    def next_due(self, connected: set[PeerId], now: float) -> float | None:
        """When the next peer that cannot be tried now may be tried."""
        times = [
            entry.not_before
            for entry in self._entries.values()
            if entry.addresses and entry.peer not in connected and entry.not_before > now
        ]
        return min(times, default=None)

    def provides(self, peer: PeerId, keys: frozenset[bytes]) -> bool:
        """Whether the peer's own record says that it is in one of these runs."""
        entry = self._entries.get(peer)
        return entry is not None and bool(entry.keys & keys)

    def members(self, keys: frozenset[bytes]) -> int:
        """How many peers of our run are known."""
        return sum(entry.may_provide(keys) for entry in self._entries.values())

    def addresses_of_members(
        self, connected: set[PeerId], keys: frozenset[bytes], now: float
    ) -> list[PeerAddress]:
        """Addresses of recent peers of our run, `REMEMBERED_ADDRESSES` each, connected ones first.

        Only hosts at which the peer was met or that the user named are included. A node treats
        these addresses as the user's own at its next start, and calls them without the limits of
        `dial_policy.py`. An address that a peer claims could name any host.
        """
        recent = [
            entry
            for entry in self._entries.values()
            if entry.signed and entry.is_recent(connected, now) and keys & entry.keys
        ]
        recent.sort(key=lambda entry: (entry.peer not in connected, -entry.connected_at))
        met = (
            [one for one in entry.addresses if one in entry.named or one.host in entry.proven]
            for entry in recent
        )
        return [address for addresses in met for address in addresses[:REMEMBERED_ADDRESSES]]

    def to_hand_out(self, connected: set[PeerId], now: float) -> list[SignedPeerRecord]:
        """Records of recent peers for a neighbour, connected ones first."""
        recent = [
            entry
            for entry in self._entries.values()
            if entry.signed and entry.is_recent(connected, now) and not entry.failures
        ]
        recent.sort(key=lambda entry: (entry.peer not in connected, -entry.connected_at))
        return [entry.signed for entry in recent if entry.signed]
