"""The figures of a heartbeat: certified samples of this node, cumulative, and the last
certificate's hash.

The certificates of this node's lineage are the only source. Neither a process's counters nor the
journal's events are: counters begin again with a process, and an event names a peer's samples
without the seq that they are paid under. A (peer, seq) counts once, as settlement pays it once
(`protocol/settlement/receipts.py`), in whatever order certificates come and however often.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Digest
from protocol.identity import PeerId


class HeartbeatFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one heartbeat says."""

    samples: int
    certificate: Digest


class CertifiedTotals:
    """Adds up one node's certified samples."""

    def __init__(self, me: PeerId) -> None:
        self._me = me
        # The seqs of this node's offers that a certificate lists.
        self._counted: set[int] = set()
        self._samples = 0
        self._newest: tuple[int, Digest] | None = None

    def add(self, certificates: Iterable[OpenCertificate]) -> None:
        """Count certificates of this node's lineage. One that was added before changes nothing."""
        for certificate in certificates:
            if self._newest is None or certificate.outcome.number >= self._newest[0]:
                self._newest = (certificate.outcome.number, certificate.hash)
            seq = certificate.listed.get(self._me)
            if seq is not None and seq not in self._counted:
                self._counted.add(seq)
                self._samples += certificate.plan.offers[certificate.plan.index[self._me]].samples

    @property
    def totals(self) -> tuple[int, int]:
        """Certified samples and the rounds that counted them, cumulative."""
        return self._samples, len(self._counted)

    @property
    def now(self) -> HeartbeatFigures | None:
        """None before there is a certificate."""
        return (
            None
            if self._newest is None
            else HeartbeatFigures(samples=self._samples, certificate=self._newest[1])
        )
