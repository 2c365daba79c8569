"""This node's own signed record, and what comes back under its name.

Neighbours hand each node the record of it that they hold. A record that this life did not sign was
signed by another life of the key, or by another node that holds the key now: a copied home. Numbers
tell them apart. A life numbers its records `first`, `first + 2`, `first + 4` and so on, and the
first number of a life is greater than all numbers of every life before it:

    number                                  meaning                           consequence
    one that this life made                 our own record                    nothing
    another within this life's range        an older node's answer to ours    `answered`: ours is the copy
    greater than our first                  a younger node's record           `younger`: answer with the next number
    smaller than our first                  an earlier life, or an older node `earlier`: call its address

An answer lies in the range of the younger life, between the numbers that the younger node uses
itself, and so does every later record of the node that answered. So of two nodes with one key the
younger learns that it is the younger, from a signature that can only be made after it began, and
the older one is never mistaken for a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from daemon.network.addresses import PeerAddress
from daemon.network.peers.address_book import (
    SignedPeerRecord,
    check_record,
    read_record,
    seal_record,
)
from protocol.identity import Signer

# Numbers of foreign records that are not looked at again.
MOST_JUDGED = 64
# A record is sealed for each change of our keys and for each answer: dozens in a long life. Two
# lives that begin from one backup are up to 1e9 numbers apart (`daemon/home/serials.py`), so ranges of
# this length meet once in 500,000 times.
LIFE_NUMBERS = 1024

Relation = Literal["answered", "younger", "earlier"]


class KeyObservation(msgspec.Struct, frozen=True, kw_only=True):
    """A record of this node's key that this life did not sign, and where its signer is."""

    relation: Relation
    number: int
    places: tuple[PeerAddress, ...]


class OwnRecord:
    """Sealed anew when the keys change, each time with a greater number.

    `serial` gives numbers that grow.
    """

    def __init__(
        self,
        signer: Signer,
        places: Iterable[PeerAddress],
        serial: Callable[[], int],
        tell: Callable[[KeyObservation], None],
    ) -> None:
        self._signer, self._places, self._serial, self._tell = signer, tuple(places), serial, tell
        self._first = self._begin = serial()
        self._next = self._first
        self._made: dict[int, None] = {}
        self._judged: dict[int, None] = {}
        self._sealed: SignedPeerRecord | None = None
        self._keys: frozenset[bytes] = frozenset()

    def sealed(self, keys: frozenset[bytes]) -> SignedPeerRecord:
        """The record as of now."""
        if self._sealed is None or keys != self._keys:
            self._seal(keys, self._next)
        assert self._sealed is not None
        return self._sealed

    def is_own(self, signed: SignedPeerRecord) -> bool:
        """Whether a record is of this node's key, by its own word. Raises `PeerFault`."""
        return read_record(signed).peer == self._signer.peer

    def heard(self, signed: SignedPeerRecord) -> bool:
        """A record of this key that somebody handed over.

        True when ours was sealed anew. Raises `PeerFault`.
        """
        number = read_record(signed).seq
        if number in self._made or number in self._judged:
            return False
        places = check_record(signed, read_record(signed))
        _keep(self._judged, number, MOST_JUDGED)
        if self._begin <= number < self._begin + LIFE_NUMBERS:
            self._tell(KeyObservation(relation="answered", number=number, places=places))
            return False
        if number < self._first:
            self._tell(KeyObservation(relation="earlier", number=number, places=places))
            return False
        self._tell(KeyObservation(relation="younger", number=number, places=places))
        self._seal(self._keys, number + 1)
        return True

    def _seal(self, keys: frozenset[bytes], number: int) -> None:
        _keep(self._made, number, LIFE_NUMBERS)
        self._sealed, self._keys = seal_record(self._signer, self._places, keys, number), keys
        self._next = number + 2
        if self._begin <= number < self._begin + LIFE_NUMBERS <= self._next:
            self._begin = self._next = max(self._serial(), self._next)


def _keep(numbers: dict[int, None], number: int, most: int) -> None:
    numbers[number] = None
    if len(numbers) > most:
        del numbers[next(iter(numbers))]
