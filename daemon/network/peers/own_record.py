"""This node's own signed record, and records of the same key that another process signed.

Neighbours hand each node the record of it that they hold. A record that this process did not sign
was signed by an earlier process of this node, or by another node that holds the key: a copied
home. Numbers tell them apart. A process numbers its records `first`, `first + 2`, `first + 4` and
so on. The first number of a process is greater than all numbers of every process before it:

    number                         signer                      relation
    made by this process           this process                none
    another within our range       an older node, in answer    "answered": this node is the copy
    greater than our first         a younger node              "younger": this node answers
    smaller than our first         an earlier process or node  "earlier": call its address

An answer lies in the range of the younger process, between the numbers that the younger process
uses itself, and so does every later record of the node that answered. So of two nodes with one key
the younger one learns that it is younger, from a signature that can only be made after it began.
The older node is never mistaken for a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from daemon.network.addresses import PeerAddress
from daemon.network.peers.peer_record import (
    SignedPeerRecord,
    check_record,
    read_record,
    seal_record,
)
from protocol.identity import Signer

# Numbers of foreign records that are not looked at again.
MAX_JUDGED = 64
# A record is sealed for each change of our keys and for each answer: dozens in a long run of the
# daemon. Two processes that begin from one backup are up to 1e9 numbers apart
# (`daemon/home/serials.py`), so ranges of this length meet once in 500,000 times.
RANGE_NUMBERS = 1024

Relation = Literal["answered", "younger", "earlier"]


class KeyObservation(msgspec.Struct, frozen=True, kw_only=True):
    """A record of this node's key that this process did not sign, and its signer's addresses."""

    relation: Relation
    number: int
    addresses: tuple[PeerAddress, ...]


class OwnRecord:
    """The record of this node, sealed anew with a greater number whenever the keys change."""

    def __init__(
        self,
        signer: Signer,
        addresses: Iterable[PeerAddress],
        serial: Callable[[], int],
        on_observed: Callable[[KeyObservation], None],
    ) -> None:
        """`serial` gives numbers that grow."""
        self.addresses = tuple(addresses)
        self._signer = signer
        self._serial, self._on_observed = serial, on_observed
        self._first = self._begin = serial()
        self._next = self._first
        self._made: dict[int, None] = {}
        self._judged: dict[int, None] = {}
        self._sealed: SignedPeerRecord | None = None
        self._keys: frozenset[bytes] = frozenset()

    def sealed(self, keys: frozenset[bytes]) -> SignedPeerRecord:
        """The record for these keys."""
        if self._sealed is None or keys != self._keys:
            return self._seal(keys, self._next)
        return self._sealed

    def move(self, addresses: Iterable[PeerAddress]) -> None:
        """Seal the record anew with other addresses."""
        self.addresses = tuple(addresses)
        self._seal(self._keys, self._next)

    def is_own(self, signed: SignedPeerRecord) -> bool:
        """Whether a record names this node. Its signature is not checked. Raises `PeerFault`."""
        return read_record(signed).peer == self._signer.peer

    def heard(self, signed: SignedPeerRecord) -> bool:
        """Judge a record of this key that a neighbour handed over.

        Returns:
            Whether our record was sealed anew.

        Raises:
            PeerFault: For a record that this key did not sign.
        """
        record = read_record(signed)
        number = record.seq
        if number in self._made or number in self._judged:
            return False
        addresses = check_record(signed, record)
        _remember(self._judged, number, MAX_JUDGED)
        relation = self._relation(number)
        self._on_observed(KeyObservation(relation=relation, number=number, addresses=addresses))
        if relation != "younger":
            return False
        self._seal(self._keys, number + 1)
        return True

    def _relation(self, number: int) -> Relation:
        if self._begin <= number < self._begin + RANGE_NUMBERS:
            return "answered"
        return "earlier" if number < self._first else "younger"

    def _seal(self, keys: frozenset[bytes], number: int) -> SignedPeerRecord:
        _remember(self._made, number, RANGE_NUMBERS)
        sealed = seal_record(self._signer, self.addresses, keys, number)
        self._sealed, self._keys = sealed, keys
        self._next = number + 2
        if self._begin <= number < self._begin + RANGE_NUMBERS <= self._next:
            self._begin = self._next = max(self._serial(), self._next)
        return sealed


def _remember(numbers: dict[int, None], number: int, most: int) -> None:
    numbers[number] = None
    if len(numbers) > most:
        del numbers[next(iter(numbers))]
