"""The figures of a heartbeat: this node's certified samples, cumulative, and the last certificate.

They are computed from the certificates of this node's lineage alone. A process's counters begin
anew with each process, and a journal event lacks the sequence number under which samples are paid.
Each pair of peer and sequence number counts once, as settlement pays it once
(`protocol/settlement/receipts.py`), in whatever order certificates come, and however often.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.settlement.paid_work import WAITS, PaidWork


class HeartbeatFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one heartbeat."""

    samples: int
    certificate: Digest


class CertifiedTotals:
    """Adds up one node's certified samples."""

    def __init__(self, me: PeerId, pay_rules: Callable[[], PaidWork | None] = lambda: None) -> None:
        """`pay_rules` makes what decides about pay in a run of rules 4; None counts all listed."""
        self._me, self._pay_rules = me, pay_rules
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget all certificates: they come once more, without those of a branch that was left.

        The pay rules are made again, with the owner's recoveries that the home knows now.
        """
        self._paid = self._pay_rules()
        # Own certificates whose pay is not certain yet, by the number of the certificate.
        self._waiting: dict[int, OpenCertificate] = {}
        # The sequence numbers of this node's offers that a certificate lists.
        self._counted: set[int] = set()
        self._samples = 0
        self._newest: tuple[int, Digest] | None = None

    def add(self, certificates: Iterable[OpenCertificate]) -> None:
        """Count certificates of this node's lineage. A repeated certificate changes nothing."""
        for certificate in certificates:
            if self._newest is None or certificate.outcome.number >= self._newest[0]:
                self._newest = (certificate.outcome.number, certificate.hash)
            if self._paid is not None and not self._paid.knows(certificate.outcome.parents):
                self._count_claims()
            if self._paid is not None:
                self._paid.follow(certificate, 0)
            seq = certificate.listed.get(self._me)
            if seq is None or seq in self._counted:
                continue
            self._counted.add(seq)
            if self._paid is None:
                self._samples += certificate.plan.offers[certificate.plan.index[self._me]].samples
            else:
                self._waiting[certificate.outcome.number] = certificate
        self._settle_waiting()

    def _count_claims(self) -> None:
        """Count what is listed from now on: the certificates here do not begin with the first.

        Settlement refuses such a home. The chain only reads a heartbeat as a sign of life.
        """
        for certificate in self._waiting.values():
            self._samples += certificate.plan.offers[certificate.plan.index[self._me]].samples
        self._waiting, self._paid = {}, None

    def _settle_waiting(self) -> None:
        """Count what is paid for certain, and forget what never is."""
        for number, certificate in list(self._waiting.items()):
            assert self._paid is not None, "only runs with pay rules let work wait"
            pay = self._paid.pay(certificate, certificate.plan.index[self._me])
            if pay.unpaid != WAITS:
                self._samples += pay.samples
                del self._waiting[number]

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
