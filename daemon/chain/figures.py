"""The figures of a heartbeat: certified samples of this node, cumulative, and the last certificate's hash. From certificates, never from counters.

Counters begin again with a process; certificates do not. What is on disk is added up once at the start, by (peer, seq), and what the journal tells
afterwards is added by certificate. Whatever was told to the chain before stays the least that is told.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.certificate import OpenCertificate
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import Event, RoundCertified


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What one heartbeat says."""

    samples: int
    certificate: Digest


class Figures:
    """Adds up one node's certified samples. Each certificate counts once, in whatever order and however often it is told."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        self._seen: set[str] = set()
        self._paid: set[int] = set()
        self._samples = 0
        self._rounds = 0
        self._newest: tuple[int, str] | None = None

    def add_disk(self, certificates: Iterable[OpenCertificate]) -> None:
        """What earlier processes saw. A seq that two branches list counts once, as it is paid once."""
        for certificate in certificates:
            name = certificate.hash.hex()
            if name in self._seen:
                continue
            self._seen.add(name)
            self._newer(certificate.outcome.number, name)
            seq = certificate.listed.get(self._me)
            if seq is not None and seq not in self._paid:
                self._paid.add(seq)
                self._rounds += 1
                self._samples += certificate.plan.offers[certificate.plan.index[self._me]].samples

    def listen(self, event: Event) -> None:
        """A listener of the journal."""
        if not isinstance(event, RoundCertified) or event.certificate in self._seen:
            return
        self._seen.add(event.certificate)
        self._newer(event.number, event.certificate)
        own = [share.samples for share in event.shares if share.peer == self._me]
        self._samples += sum(own)
        self._rounds += bool(own)

    def _newer(self, number: int, name: str) -> None:
        if self._newest is None or number >= self._newest[0]:
            self._newest = (number, name)

    @property
    def totals(self) -> tuple[int, int]:
        """Certified samples and the rounds that counted them, cumulative."""
        return self._samples, self._rounds

    @property
    def now(self) -> Figure | None:
        """None before there is a certificate."""
        return None if self._newest is None else Figure(samples=self._samples, certificate=bytes.fromhex(self._newest[1]))
