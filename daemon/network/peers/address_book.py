"""Who is where: a bounded address book, and the signed records with which nodes tell each other of
members.

Pure.

A record is believed because the peer it speaks of signed it; a hint (a join address, a provider's
address) only says where to try. Only members that were connected to us within `FRESH_S` are handed
on, so that the dead disappear from the swarm's memory.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from daemon.network.addresses import PeerAddress, parse_peer_address
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, verify

MAX_ENTRIES = 1024  # of the book
MAX_PLACES = 8  # addresses of one peer
MAX_PROVEN = 4  # hosts at which one peer was met
# Peers that one peer told of and that were never met: one exchange's worth.
MAX_OF_SOURCE = 32
# Of one peer, from one life to the next: called again and again, whoever it says lives there.
REMEMBERED_PLACES = 2
MAX_KEYS = 4  # runs a node can be in
MAX_RECORDS = 32  # handed out at a time
MAX_RECORD_BYTES = 2048
MAX_EXCHANGE_BYTES = MAX_RECORDS * (MAX_RECORD_BYTES + 64 + 16) + 16
FRESH_S = 600.0
# After the first failure, and at most; doubled in between.
BACKOFF_S = (1.0, 60.0)
# Join addresses are how a node that lost everybody comes back.
JOIN_BACKOFF_MOST_S = 10.0
FORGET_AFTER_FAILURES = 6  # in a row, about two minutes
# Of two who learn of each other at once, the one with the greater id waits this long for the
# other's call.
YIELD_S = 0.5

_DOMAIN = b"hypergpu/peer-record/1\x00"


class PeerRecord(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """A member's own words: where it is and which keys (runs) it provides.

    The greater `seq` is the newer.
    """

    peer: PeerId
    addresses: tuple[str, ...]
    keys: tuple[bytes, ...]
    seq: int


class SignedPeerRecord(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """The encoded record and its peer's signature."""

    body: bytes
    signature: bytes


class PeerExchange(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What each side of `/hypergpu/peers/1` sends: its own record first."""

    records: tuple[SignedPeerRecord, ...]


_record_decoder = msgspec.msgpack.Decoder(PeerRecord)
_exchange_decoder = msgspec.msgpack.Decoder(PeerExchange)


def seal_record(
    signer: Signer, places: Iterable[PeerAddress], keys: Iterable[bytes], seq: int
) -> SignedPeerRecord:
    addresses = tuple(str(place) for place in places)[:MAX_PLACES]
    body = msgspec.msgpack.encode(
        PeerRecord(
            peer=signer.peer, addresses=addresses, keys=tuple(sorted(keys))[:MAX_KEYS], seq=seq
        )
    )
    return SignedPeerRecord(body=body, signature=signer.sign(_DOMAIN + body))


def read_record(signed: SignedPeerRecord) -> PeerRecord:
    """What it says, before anybody has checked who says it.

    Raises `PeerFault`: oversized, malformed.
    """
    if len(signed.body) > MAX_RECORD_BYTES:
        raise PeerFault("oversized", f"a peer record of {len(signed.body)} bytes")
    try:
        record = _record_decoder.decode(signed.body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PeerFault("malformed", f"a peer record: {error}") from None
    if (
        len(record.addresses) > MAX_PLACES
        or len(record.keys) > MAX_KEYS
        or any(len(key) != 32 for key in record.keys)
    ):
        raise PeerFault(
            "malformed",
            f"a peer record of {len(record.addresses)} addresses and {len(record.keys)} keys",
        )
    return record


def check_record(signed: SignedPeerRecord, record: PeerRecord) -> tuple[PeerAddress, ...]:
    """The places it gives, when its peer signed it.

    Raises `PeerFault`: identity, unsigned, malformed.
    """
    if not verify(record.peer, signed.signature, _DOMAIN + signed.body):
        raise PeerFault("unsigned", f"a peer record that {record.peer} did not sign")
    places = tuple(parse_peer_address(address) for address in record.addresses)
    if any(place.peer != record.peer for place in places):
        raise PeerFault("malformed", f"{record.peer} gives addresses of somebody else")
    return places


def encode_exchange(records: Iterable[SignedPeerRecord]) -> bytes:
    return msgspec.msgpack.encode(PeerExchange(records=tuple(records)[:MAX_RECORDS]))


def decode_exchange(data: bytes) -> tuple[SignedPeerRecord, ...]:
    """Raises `PeerFault`."""
    try:
        records = _exchange_decoder.decode(data).records
    except (msgspec.DecodeError, RecursionError) as error:
        raise PeerFault("malformed", f"a peer exchange: {error}") from None
    if len(records) > MAX_RECORDS:
        raise PeerFault("oversized", f"a peer exchange of {len(records)} records")
    return records


class AddressEntry:
    """What we know of one peer. Times are on the network's monotonic clock."""

    def __init__(self, peer: PeerId, source: PeerId = "") -> None:
        """`source` told us of it first; empty for the user's own words."""
        self.peer = peer
        self.source = source
        self.named: frozenset[PeerAddress] = frozenset()  # by the user
        # Hosts at which its key was proved, the last one first.
        self.proven: list[str] = []
        self.places: list[PeerAddress] = []
        self.keys: frozenset[bytes] = frozenset()
        self.signed: SignedPeerRecord | None = None
        self.seq = -1
        self.join = False
        self.connected_at = float("-inf")
        self.failures = 0
        self.not_before = float("-inf")


class AddressBook:
    """Entries of other peers; never more than `MAX_ENTRIES`."""

    def __init__(self, own: PeerId, join: Iterable[PeerAddress]) -> None:
        self._own = own
        self._entries: dict[PeerId, AddressEntry] = {}
        for place in join:
            if place.peer != own:
                entry = self._entry(place.peer)
                entry.join = True
                entry.named |= {place}
                entry.places.append(place)

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
                self._entries.pop(
                    min(
                        (e for e in self._entries.values() if not e.join),
                        key=lambda e: (e.connected_at, -e.failures),
                    ).peer
                )
            entry = self._entries[peer] = AddressEntry(peer, source)
        return entry

    def _make_room_of(self, source: PeerId) -> None:
        """One peer's tales fill no more than their share: the oldest of those it told of and nobody
        met makes room.
        """
        told = [
            e
            for e in self._entries.values()
            if e.source == source and e.connected_at == float("-inf")
        ]
        if len(told) >= MAX_OF_SOURCE:
            del self._entries[told[0].peer]

    def entry_of(self, peer: PeerId) -> AddressEntry | None:
        """What is known of a peer. Not to be changed."""
        return self._entries.get(peer)

    def places_of(self, peer: PeerId) -> list[PeerAddress]:
        entry = self._entries.get(peer)
        return list(entry.places) if entry else []

    def is_named(self, peer: PeerId) -> bool:
        """Whether the user gave an address of this peer."""
        entry = self._entries.get(peer)
        return entry is not None and entry.join

    def named(self) -> list[PeerAddress]:
        """The addresses that the user gave."""
        return [place for entry in self._entries.values() for place in entry.named]

    def hint(self, places: Iterable[PeerAddress], source: PeerId) -> bool:
        """Addresses somebody else gave: tried after the peer's own.

        True when a peer is new to us.
        """
        new = False
        for place in places:
            if place.peer == self._own:
                continue
            new = new or place.peer not in self._entries
            entry = self._entry(place.peer, source)
            if place not in entry.places and len(entry.places) < MAX_PLACES:
                entry.places.append(place)
        return new

    def learn(self, signed: SignedPeerRecord, now: float, source: PeerId) -> bool:
        """A record that `source` handed us.

        True when it told of a peer we did not know. Raises `PeerFault`.
        """
        record = read_record(signed)
        known = self._entries.get(record.peer)
        if record.peer == self._own or (known is not None and known.seq >= record.seq):
            # Most of what neighbours hand us: no signature is checked for it.
            return False
        places = check_record(signed, record)
        entry = self._entry(record.peer, source)
        entry.signed, entry.seq, entry.keys = signed, record.seq, frozenset(record.keys)
        joins = [place for place in entry.places if entry.join and place not in places]
        entry.places = [*places, *joins][: MAX_PLACES + len(joins)]
        if known is None and self._own > record.peer:
            entry.not_before = now + YIELD_S
        return known is None

    def connected(self, peer: PeerId, now: float, host: str = "") -> None:
        """It proved its key at `host`."""
        entry = self._entry(peer)
        entry.connected_at, entry.failures, entry.not_before = now, 0, float("-inf")
        self.met(peer, host)

    def met(self, peer: PeerId, host: str) -> None:
        """A known peer proved its key at `host`."""
        entry = self._entries.get(peer)
        if entry is not None and host:
            entry.proven = [host, *(known for known in entry.proven if known != host)][:MAX_PROVEN]

    def postpone(self, peer: PeerId, until_s: float) -> None:
        """It cannot be tried yet, which is no failure of its own."""
        entry = self._entries.get(peer)
        if entry is not None:
            entry.not_before = max(entry.not_before, until_s)

    def lost(self, peer: PeerId, now: float) -> None:
        """Its connection broke: both sides know, and one of them should call."""
        entry = self._entries.get(peer)
        if entry is not None and self._own > peer:
            entry.not_before = now + YIELD_S

    def failed(self, peer: PeerId, now: float) -> None:
        """A dial did not succeed: wait longer each time, forget after many."""
        entry = self._entries.get(peer)
        if entry is None:
            return
        entry.failures += 1
        most = JOIN_BACKOFF_MOST_S if entry.join else BACKOFF_S[1]
        entry.not_before = now + min(most, BACKOFF_S[0] * 2 ** (entry.failures - 1))
        if entry.failures >= FORGET_AFTER_FAILURES and not entry.join:
            del self._entries[peer]

    def to_dial(self, connected: set[PeerId], keys: frozenset[bytes], now: float) -> list[PeerId]:
        """Who to try now, best first: in our run, few failures. Members of other runs come last."""
        ready = [
            e
            for e in self._entries.values()
            if e.places and e.peer not in connected and e.not_before <= now
        ]
        return [
            e.peer
            for e in sorted(
                ready,
                key=lambda e: (
                    bool(keys and e.keys and not keys & e.keys),
                    e.failures,
                    -e.connected_at,
                ),
            )
        ]

    def next_due(self, connected: set[PeerId], now: float) -> float | None:
        """When somebody we could not try just now may be tried again."""
        times = [
            e.not_before
            for e in self._entries.values()
            if e.places and e.peer not in connected and e.not_before > now
        ]
        return min(times, default=None)

    def members(self, keys: frozenset[bytes]) -> int:
        """How many peers in our run we know to exist."""
        return sum(1 for e in self._entries.values() if not (keys and e.keys and not keys & e.keys))

    def places_of_members(
        self, connected: set[PeerId], keys: frozenset[bytes], now: float
    ) -> list[PeerAddress]:
        """Where peers of our run are that were there a while ago, `REMEMBERED_PLACES` each; those
        connected now come first.

        Only at hosts where the peer was met, or that the user named: the next life takes these for
        the user's own words, and calls them free of the bounds of `dialing.py`. What a peer says of
        itself could name any host.
        """
        there = [
            e
            for e in self._entries.values()
            if e.signed
            and (e.peer in connected or now - e.connected_at < FRESH_S)
            and keys & e.keys
        ]
        there.sort(key=lambda e: (e.peer not in connected, -e.connected_at))
        met = (
            [place for place in e.places if place in e.named or place.host in e.proven]
            for e in there
        )
        return [place for places in met for place in places[:REMEMBERED_PLACES]]

    def record_of(self, peer: PeerId) -> SignedPeerRecord | None:
        """What a peer signed of itself last."""
        entry = self._entries.get(peer)
        return entry.signed if entry else None

    def to_hand_out(self, connected: set[PeerId], now: float) -> list[SignedPeerRecord]:
        fresh = [
            e
            for e in self._entries.values()
            if e.signed
            and (e.peer in connected or now - e.connected_at < FRESH_S)
            and not e.failures
        ]
        fresh.sort(key=lambda e: (e.peer not in connected, -e.connected_at))
        return [e.signed for e in fresh if e.signed]
