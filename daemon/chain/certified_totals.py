"""The figures of a heartbeat: this node's certified samples, cumulative, and the last certificate.

They are computed from the certificates of this node's lineage alone. A process's counters begin
anew with each process, and a journal event lacks the sequence number under which samples are paid.
Each pair of peer and sequence number counts once, as settlement pays it once
(`protocol/settlement/receipts.py`), in whatever order certificates come, and however often.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Digest
from protocol.identity import PeerId


class HeartbeatFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one heartbeat."""

    samples: int
    certificate: Digest


class CertifiedTotals:
    """Adds up one node's certified samples."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        # The sequence numbers of this node's offers that a certificate lists.
        self._counted: set[int] = set()
        self._samples = 0
        self._newest: tuple[int, Digest] | None = None

    def add(self, certificates: Iterable[OpenCertificate]) -> None:
        """Count certificates of this node's lineage. A repeated certificate changes nothing."""
        for certificate in certificates:
            if self._newest is None or certificate.outcome.number >= self._newest[0]:
                self._newest = (certificate.outcome.number, certificate.hash)
            seq = certificate.listed.get(self._me)
            if seq is not None and seq not in self._counted:
                self._counted.add(seq)
                self._samples += certificate.plan.offers[certificate.plan.index[self._me]].samples

    @property
    def totals(self) -> tuple[int, int]:
        """Certified samples, and the number of rounds that counted them; both cumulative."""
        return self._samples, len(self._counted)

    @property
    def now(self) -> HeartbeatFigures | None:
        """The figures to report now; None before the first certificate."""
        return (
            None
            if self._newest is None
            else HeartbeatFigures(samples=self._samples, certificate=self._newest[1])
        )
