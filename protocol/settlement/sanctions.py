"""Sanctions in steps, a pure function of the offences that were found.

    step 1  subtract    the offence's samples are subtracted from later earnings; what was paid
            stays
    step 2  quarantine  and work of the next `quarantine_epochs` is never paid
    step 3  forfeit     and the locked earnings are lost
    step 4  ban         and the account earns nothing any more

An account without an offence for `probation_epochs` after its last one, or after its quarantine,
begins at step 1 again. A ban is final. Every sanction carries its reason and the hash of its
evidence, so that anyone with the evidence can check it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec

from protocol.digest import Digest, digest
from protocol.identity import short
from protocol.settlement.receipts import Account, Key, Receipt
from protocol.settlement.rules import SettlementRules

NEVER = -1
"""The `until` of a ban."""

_EVIDENCE = b"hypergpu/evidence/equivocation/1\0"


class SanctionStep(enum.IntEnum):
    """How severe the sanctions of an account are."""

    SUBTRACT = 1
    QUARANTINE = 2
    FORFEIT = 3
    BAN = 4


class Offence(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A provable offence of an account's node.

    `samples` is the work that it concerns. `evidence` names the proof.
    """

    epoch: int
    account: Account
    evidence: Digest
    reason: str
    samples: int


class Sanction(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """The consequence of an offence.

    `until` is the first epoch in which the account earns again; 0 if it does not stop earning,
    `NEVER` for a ban.
    """

    epoch: int
    account: Account
    step: SanctionStep
    samples: int
    until: int
    reason: str
    evidence: Digest


def judge(offences: Iterable[Offence], rules: SettlementRules) -> list[Sanction]:
    """Return the sanctions that follow, in the order of epochs and accounts.

    The order of `offences` does not matter, and a repeated one counts once.
    """
    # The last step, and the epoch from which the probation counts.
    steps: dict[Account, tuple[int, int]] = {}
    sanctions: list[Sanction] = []
    seen: set[tuple[Account, Digest]] = set()
    for offence in sorted(offences):
        if (offence.account, offence.evidence) in seen:
            continue
        seen.add((offence.account, offence.evidence))
        step, since = steps.get(offence.account, (0, 0))
        if step == SanctionStep.BAN:
            continue
        clean = step and offence.epoch >= since + rules.probation_epochs
        now = SanctionStep.SUBTRACT if clean else SanctionStep(step + 1)
        until = (
            0
            if now == SanctionStep.SUBTRACT
            else NEVER
            if now == SanctionStep.BAN
            else offence.epoch + rules.quarantine_epochs
        )
        steps[offence.account] = (now, max(offence.epoch, until))
        sanctions.append(
            Sanction(
                epoch=offence.epoch,
                account=offence.account,
                step=now,
                samples=offence.samples,
                until=until,
                reason=offence.reason,
                evidence=offence.evidence,
            )
        )
    return sanctions


def equivocations(
    epoch: int, receipts: Iterable[Receipt], before: Mapping[Key, Receipt]
) -> list[Offence]:
    """Return the offences of peers that signed two different offers under one (peer, seq).

    An honest node cannot do that: it makes an offer durable before it sends it, and repeats it byte
    for byte. The evidence is the two signed offers, which the certificates carry.

    Args:
        epoch: the current epoch.
        receipts: what is counted in it.
        before: what was counted in earlier epochs.
    """
    first: dict[Key, Receipt] = {}
    found: list[Offence] = []
    for receipt in sorted(receipts, key=lambda one: (one.key, one.order)):
        known = before.get(receipt.key) or first.setdefault(receipt.key, receipt)
        account = receipt.account or known.account
        if (known.contribution, known.samples) != (
            receipt.contribution,
            receipt.samples,
        ) and account is not None:
            offers = sorted(
                (one.contribution, one.samples.to_bytes(8, "big")) for one in (known, receipt)
            )
            evidence = digest(
                _EVIDENCE,
                receipt.peer.encode(),
                receipt.seq.to_bytes(8, "big"),
                *(part for one in offers for part in one),
            )
            reason = f"{short(receipt.peer)} signed two different offers as seq {receipt.seq}"
            samples = max(known.samples, receipt.samples)
            found.append(
                Offence(
                    epoch=epoch, account=account, evidence=evidence, reason=reason, samples=samples
                )
            )
    return found
