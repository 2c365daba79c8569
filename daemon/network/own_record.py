"""This node's own signed record, and what comes back under its name.

Neighbours hand each node the record of it that they hold. One that this life did not sign was signed by another life of the key, or by another node
that holds the key now: a copied home. Numbers tell them apart, since a life's numbers are greater than those of every life before it:

    number                          what it is                          what follows
    one of ours                     our own record                      nothing
    one of ours, plus one           an older node's answer to ours      `ANSWERED`: the older node lives, and ours is the copy
    greater than our first          a younger node's record             `YOUNGER`: answered by a record with the next number
    smaller than our first          an earlier life, or an older node   `EARLIER`: somebody has to look who answers there

So of two nodes with one key the younger learns that it is the younger, from a signature that can only be made after it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from daemon.network.addresses import Place
from daemon.network.book import SignedPeerRecord, check_record, read_record, seal_record
from protocol.identity import Signer

MOST_JUDGED = 64  # numbers of foreign records that are not looked at again
MOST_MADE = 1024  # own numbers known: one for each change of our keys and for each answer

Relation = Literal["answered", "younger", "earlier"]


class KeySighting(msgspec.Struct, frozen=True, kw_only=True):
    """A record of this node's key that this life did not sign, and where its signer is."""

    relation: Relation
    number: int
    places: tuple[Place, ...]


class OwnRecord:
    """Sealed anew when the keys change, each time with a greater number. `serial` gives numbers that grow."""

    def __init__(self, signer: Signer, places: Iterable[Place], serial: Callable[[], int], tell: Callable[[KeySighting], None]) -> None:
        self._signer, self._places, self._serial, self._tell = signer, tuple(places), serial, tell
        self._first = serial()
        self._made: dict[int, None] = {}
        self._judged: dict[int, None] = {}
        self._sealed: SignedPeerRecord | None = None
        self._keys: frozenset[bytes] = frozenset()

    def sealed(self, keys: frozenset[bytes]) -> SignedPeerRecord:
        """The record as of now."""
        if self._sealed is None or keys != self._keys:
            self._seal(keys, self._serial())
        assert self._sealed is not None
        return self._sealed

    def is_own(self, signed: SignedPeerRecord) -> bool:
        """Whether a record is of this node's key, by its own word. Raises `PeerFault`."""
        return read_record(signed).peer == self._signer.peer

    def heard(self, signed: SignedPeerRecord) -> bool:
        """A record of this key that somebody handed over. True when ours was sealed anew. Raises `PeerFault`."""
        number = read_record(signed).seq
        if number in self._made or number in self._judged:
            return False
        places = check_record(signed, read_record(signed))
        _keep(self._judged, number, MOST_JUDGED)
        if number - 1 in self._made:
            self._tell(KeySighting(relation="answered", number=number, places=places))
            return False
        if number < self._first:
            self._tell(KeySighting(relation="earlier", number=number, places=places))
            return False
        self._tell(KeySighting(relation="younger", number=number, places=places))
        self._seal(self._keys, number + 1)
        return True

    def _seal(self, keys: frozenset[bytes], number: int) -> None:
        _keep(self._made, number, MOST_MADE)
        self._sealed, self._keys = seal_record(self._signer, self._places, keys, number), keys


def _keep(numbers: dict[int, None], number: int, most: int) -> None:
    numbers[number] = None
    if len(numbers) > most:
        del numbers[next(iter(numbers))]
