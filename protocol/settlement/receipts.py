"""Receipts: which offers a certificate counted, and in which epoch they are paid.

A receipt is named by (peer, seq). The certificate is the witness: a majority of its plan signed
that the work was included. So nothing here is self-reported but the number of samples, which the
manifest caps. An epoch is the ancestry of its last certificate without the ancestries of the epochs
before. No clock decides where an epoch ends, and a branch that is merged later is paid in the epoch
that merged it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.messages.membership import Recovery
from protocol.messages.offer import Ready
from protocol.settlement.paid_work import PayRule

Account = bytes
"""The 20 bytes of a wallet's address."""

Key = tuple[PeerId, int]


class Receipt(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One counted offer.

    `account` is None if the offer carried no binding: it counts but earns nothing.
    """

    peer: PeerId
    seq: int
    samples: int
    contribution: Digest
    account: Account | None = None
    # The samples that are paid; None where all are.
    paid: int | None = None
    # Why nothing is paid, for its owner; empty where something is.
    unpaid: str = ""

    @property
    def paid_samples(self) -> int:
        """The samples that count for pay."""
        return self.samples if self.paid is None else self.paid

    @property
    def key(self) -> Key:
        return self.peer, self.seq

    @property
    def order(self) -> tuple[int, Digest, Account]:
        """Orders the receipts of one key whatever order they came in. The smallest counts."""
        return self.samples, self.contribution, self.account or b""


def receipts_of(
    certificate: OpenCertificate, account_of: Callable[[PeerId, Ready], Account | None]
) -> list[Receipt]:
    """Return the receipts of one certificate, in the order of the plan.

    `account_of` returns the account that an offer's binding names.
    """
    plan = certificate.plan
    return [
        Receipt(
            peer=plan.members[i],
            seq=plan.offers[i].seq,
            samples=plan.offers[i].samples,
            contribution=plan.offers[i].contribution,
            account=account_of(plan.members[i], plan.offers[i]),
        )
        for i in certificate.inclusion.contributors
    ]


def ancestry(
    tip: Digest, parents: Mapping[Digest, Sequence[Digest]], root: Digest
) -> frozenset[Digest]:
    """Return `tip` and all certificates before it.

    Raises `UserError("CERTIFICATES_MISSING")` if one of them is unknown.
    """
    seen: set[Digest] = set()
    waiting = [tip]
    while waiting:
        name = waiting.pop()
        if name in seen or name == root:
            continue
        if name not in parents:
            raise UserError(
                "CERTIFICATES_MISSING",
                (
                    f"Certificate {name.hex()[:12]} is not on this disk, and what it counted "
                    "cannot be added up without it."
                ),
                why="this node joined on another branch, or it has not caught up yet",
                fix=(
                    "run `hypergpud start` until this node's round is that of the others, then "
                    "try again"
                ),
            )
        seen.add(name)
        waiting.extend(parents[name])
    return frozenset(seen)


def by_epoch(
    certificates: Iterable[OpenCertificate],
    tips: Sequence[Digest],
    root: Digest,
    account_of: Callable[[PeerId, Ready], Account | None],
    pay: PayRule | None = None,
    recoveries: Mapping[Digest, Recovery] = MappingProxyType({}),
) -> list[tuple[Receipt, ...]]:
    """Return the receipts of each epoch, whose last certificates are `tips`, oldest epoch first.

    The order of `certificates` does not matter. `pay` says what is paid and in which epoch; None
    pays everything in the epoch of its certificate. `recoveries` are the owner's, by name: the
    certificates that one took back are in no later epoch.
    """
    known = {certificate.hash: certificate for certificate in certificates}
    parents: dict[Digest, Sequence[Digest]] = {
        name: certificate.outcome.parents for name, certificate in known.items()
    }
    parents |= {name: (recovery.tip,) for name, recovery in recoveries.items()}
    epochs: list[list[Receipt]] = []
    epoch_of: dict[Digest, int] = {}
    for epoch, tip in enumerate(tips):
        fresh = sorted(ancestry(tip, parents, root) - epoch_of.keys() - recoveries.keys())
        epoch_of |= dict.fromkeys(fresh, epoch)
        epochs.append([])
    paid = pay(known, epoch_of) if pay is not None else None
    for name, epoch in epoch_of.items():
        receipts = receipts_of(known[name], account_of)
        if paid is None:
            epochs[epoch] += receipts
            continue
        for index, receipt in zip(known[name].inclusion.contributors, receipts, strict=True):
            due = paid.pay(known[name], index)
            epochs[due.epoch].append(replace(receipt, paid=due.samples, unpaid=due.unpaid))
    return [tuple(receipts) for receipts in epochs]
