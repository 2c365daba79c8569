"""The address book believes signed records alone, and does not grow without bound."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.network.addresses import PeerAddress, parse_peer_address
from daemon.network.peers.address_book import (
    BACKOFF_S,
    FORGET_AFTER_FAILURES,
    MAX_ENTRIES,
    REMEMBERED_ADDRESSES,
    AddressBook,
)
from daemon.network.peers.address_entry import FRESH_S
from daemon.network.peers.peer_record import (
    MAX_ADDRESSES,
    MAX_EXCHANGE_BYTES,
    MAX_KEYS,
    MAX_RECORD_BYTES,
    MAX_RECORDS,
    SignedPeerRecord,
    decode_exchange,
    encode_exchange,
    seal_record,
)
from protocol.errors import PeerFault
from protocol.identity import Signer

RUN, OTHER_RUN = b"r" * 32, b"o" * 32


def signer(number: int) -> Signer:
    return Signer(number.to_bytes(32, "big"))


def address(number: int, port: int = 4001) -> PeerAddress:
    return PeerAddress("ip4", "10.0.0.1", port, signer(number).peer)


def record(number: int, seq: int = 1, keys: tuple[bytes, ...] = (RUN,)) -> SignedPeerRecord:
    return seal_record(signer(number), [address(number)], keys, seq)


def a_book(join: tuple[PeerAddress, ...] = ()) -> AddressBook:
    return AddressBook(signer(1).peer, join)


def test_a_record_is_learned_once_and_replaced_by_a_newer_one() -> None:
    book = a_book()
    assert book.learn(record(2), 0.0, "teller")
    assert not book.learn(record(2), 0.0, "teller")
    newer = seal_record(signer(2), [address(2, 5001)], [RUN], 2)
    assert not book.learn(newer, 0.0, "teller")
    assert book.addresses_of(signer(2).peer) == [address(2, 5001)]
    assert not book.learn(record(2), 0.0, "teller"), "an older record changes nothing"
    assert book.addresses_of(signer(2).peer) == [address(2, 5001)]
    assert not book.learn(record(1), 0.0, "teller"), "our own record changes nothing"


def test_addresses_of_members_are_those_of_recent_members() -> None:
    """They leave out members of other runs, hints, and peers that were never connected."""
    book = a_book()
    many = seal_record(signer(2), [address(2, 4000 + n) for n in range(MAX_ADDRESSES)], [RUN], 1)
    for signed in (many, record(3), record(4, keys=(OTHER_RUN,)), record(5)):
        book.learn(signed, 0.0, "teller")
    book.hint([address(6)], "teller")
    for number in (2, 3, 4, 6):
        book.connected(signer(number).peer, float(number), address(number).host)
    here = {signer(3).peer}
    two = [address(2, 4000 + n) for n in range(REMEMBERED_ADDRESSES)]
    assert book.addresses_of_members(here, frozenset({RUN}), 10.0) == [address(3), *two]
    assert book.addresses_of_members(here, frozenset({RUN}), FRESH_S + 10.0) == [address(3)]


def test_addresses_of_members_are_met_or_named_by_the_user() -> None:
    """The next start calls these addresses without limits, and a peer can claim any host."""
    two, three = signer(2).peer, signer(3).peer
    named = PeerAddress("dns4", "home.example", 22, three)
    book = AddressBook(signer(1).peer, [named])
    claims = [
        PeerAddress("ip4", "169.254.169.254", 80, two),
        PeerAddress("dns4", "victim.example", 22, two),
        address(2),
    ]
    book.learn(seal_record(signer(2), claims, [RUN], 1), 0.0, "teller")
    book.learn(
        seal_record(signer(3), [PeerAddress("ip4", "10.0.0.9", 22, three)], [RUN], 1), 0.0, "teller"
    )
    book.connected(two, 2.0, address(2).host)
    book.connected(three, 3.0, "203.0.113.3")
    assert book.addresses_of_members({two, three}, frozenset({RUN}), 4.0) == [named, address(2)]


def test_a_record_that_its_peer_did_not_sign_is_refused() -> None:
    honest = record(2)
    stolen = SignedPeerRecord(body=honest.body, signature=record(3).signature)
    elsewhere = seal_record(signer(2), [address(3)], [RUN], 1)
    huge = SignedPeerRecord(body=bytes(MAX_RECORD_BYTES + 1), signature=b"")
    for wrong, reason in (
        (stolen, "unsigned"),
        (elsewhere, "malformed"),
        (huge, "oversized"),
        (SignedPeerRecord(body=b"?", signature=b""), "malformed"),
    ):
        book = a_book()
        with pytest.raises(PeerFault) as caught:
            book.learn(wrong, 0.0, "teller")
        assert caught.value.reason == reason
        assert len(book) == 0


@given(st.binary(max_size=300))
def test_any_bytes_are_an_exchange_or_a_fault(data: bytes) -> None:
    try:
        records = decode_exchange(data)
    except PeerFault:
        return
    for one in records:
        with contextlib.suppress(PeerFault):
            a_book().learn(one, 0.0, "teller")


@given(st.text(max_size=200))
def test_any_text_is_an_address_or_a_fault(text: str) -> None:
    with contextlib.suppress(PeerFault):
        assert str(parse_peer_address(text)) == text


def test_the_largest_exchange_fits_its_limit() -> None:
    addresses = [
        PeerAddress("dns4", f"{'a' * 60}.{number}.example", 65_535, signer(2).peer)
        for number in range(MAX_ADDRESSES)
    ]
    largest = seal_record(
        signer(2), addresses, [bytes((number,)) * 32 for number in range(MAX_KEYS)], (1 << 64) - 1
    )
    assert len(largest.body) <= MAX_RECORD_BYTES
    assert len(encode_exchange([largest] * MAX_RECORDS)) <= MAX_EXCHANGE_BYTES
    with pytest.raises(PeerFault):
        decode_exchange(msgspec.msgpack.encode([[[b"", b""]] * (MAX_RECORDS + 1)]))


def test_the_book_is_bounded_and_keeps_join_addresses() -> None:
    book = a_book((address(2),))
    for number in range(3, MAX_ENTRIES + 50):
        book.hint([address(number)], f"teller {number % 64}")
    assert len(book) == MAX_ENTRIES
    assert signer(2).peer in book


def test_failed_peers_wait_longer_and_are_forgotten_but_for_join_addresses() -> None:
    book = a_book((address(2),))
    book.hint([address(3)], "teller")
    now = 0.0
    for failure in range(FORGET_AFTER_FAILURES):
        assert set(book.to_dial(set(), frozenset(), now)) == {signer(2).peer, signer(3).peer}
        for number in (2, 3):
            book.failed(signer(number).peer, now)
        due = book.next_due(set(), now)
        assert due is not None
        assert due - now <= BACKOFF_S[0] * 2**failure
        assert book.to_dial(set(), frozenset(), now) == []
        now += BACKOFF_S[1]
    assert signer(3).peer not in book
    assert book.to_dial(set(), frozenset(), now) == [signer(2).peer]


def test_members_of_our_run_come_first_and_connected_ones_not_at_all() -> None:
    book = AddressBook(signer(9).peer, ())
    book.learn(record(2, keys=(OTHER_RUN,)), 0.0, "teller")
    book.learn(record(3), 0.0, "teller")
    book.learn(record(4, keys=()), 0.0, "teller")
    order = book.to_dial({signer(4).peer}, frozenset({RUN}), 10.0)
    assert order == [signer(3).peer, signer(2).peer]
    assert book.members(frozenset({RUN})) == 2


def test_one_of_two_peers_that_lose_each_other_calls_first() -> None:
    low, high = sorted((signer(2), signer(3)), key=lambda one: one.peer)
    waits = {}
    for own, other in ((low, high), (high, low)):
        book = AddressBook(own.peer, (PeerAddress("ip4", "10.0.0.1", 4001, other.peer),))
        book.connected(other.peer, 0.0)
        book.lost(other.peer, 5.0)
        waits[own.peer] = book.to_dial(set(), frozenset(), 5.0) == []
    assert waits == {low.peer: False, high.peer: True}


def test_only_recent_peers_are_handed_out() -> None:
    book = a_book()
    for number in (2, 3, 4):
        book.learn(record(number), 0.0, f"teller {number % 2}")
    book.connected(signer(2).peer, 0.0)
    book.connected(signer(3).peer, FRESH_S)
    now = FRESH_S + 1
    assert book.to_hand_out(set(), now) == [record(3)]
    assert book.to_hand_out({signer(2).peer}, now) == [record(2), record(3)]
    book.failed(signer(3).peer, now)
    assert book.to_hand_out(set(), now) == []
