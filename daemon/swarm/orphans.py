"""Certificates whose parent has not arrived yet. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Digest

# Certificates that wait for a parent, in all and of one peer.
ORPHANS_KEPT = 32
ORPHANS_OF_ONE = 8


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that waits, and how it arrived."""

    certificate: OpenCertificate
    # The peer that brought it; empty for this node.
    source: str
    # Whether it came in an answer to a request of this node.
    asked: bool


class Orphans:
    """The waiting certificates, the oldest first. The oldest make room for new ones."""

    def __init__(self) -> None:
        self._orphans: OrderedDict[Digest, Orphan] = OrderedDict()

    def __contains__(self, name: object) -> bool:
        return name in self._orphans

    def __len__(self) -> int:
        return len(self._orphans)

    def add(self, orphan: Orphan) -> None:
        self._orphans[orphan.certificate.hash] = orphan
        of_one = [name for name, one in self._orphans.items() if one.source == orphan.source]
        if len(of_one) > ORPHANS_OF_ONE:
            del self._orphans[of_one[0]]
        while len(self._orphans) > ORPHANS_KEPT:
            self._orphans.popitem(last=False)

    def pop_ready(self, ready: Callable[[OpenCertificate], bool]) -> Orphan | None:
        """Remove and return the oldest orphan that is `ready`; None when no orphan is."""
        for name, orphan in self._orphans.items():
            if ready(orphan.certificate):
                del self._orphans[name]
                return orphan
        return None
