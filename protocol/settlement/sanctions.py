"""Sanctions in steps, as a pure function of the offences that were found: subtract, quarantine with
probation, forfeit, ban.

    step 1  subtract    the offence's samples are taken off what the account earns from then on; nothing that was paid is touched
    step 2  quarantine  and nothing is earned for `quarantine_epochs`; what was done in them is never paid
    step 3  forfeit     and the locked window, earned but not claimable yet, is lost
    step 4  ban         and nothing is earned any more

An account without an offence for `probation_epochs` after its last one (after its quarantine, where
it was in one) begins at step 1 again; nobody comes back from a ban. Every sanction carries its
reason and the hash of its evidence, so that whoever has the evidence can check it.
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
_EVIDENCE = b"hypergpu/evidence/equivocation/1\0"


class SanctionStep(enum.IntEnum):
    """How far it has gone with an account."""

    SUBTRACT = 1
    QUARANTINE = 2
    FORFEIT = 3
    BAN = 4


class Offence(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Something provable that an account's node did.

    `samples` is what it concerned; `evidence` names what proves it.
    """

    epoch: int
    account: Account
    evidence: Digest
    reason: str
    samples: int


class Sanction(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What follows from an offence."""

    epoch: int
    account: Account
    step: SanctionStep
    samples: int
    # The first epoch in which the account earns again; 0 where it does not stop earning, NEVER for
    # a ban.
    until: int
    reason: str
    evidence: Digest


def judge(offences: Iterable[Offence], rules: SettlementRules) -> list[Sanction]:
    """The sanctions that follow, in order of epoch and account.

    The order of `offences` does not matter; one told twice counts once.
    """
    # How far, and the epoch from which on the probation counts.
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
    """Offers of one (peer, seq) that say two things: a node makes an offer durable before it gives
    it out, and repeats it byte for byte.

    `before` has what was counted in earlier epochs. The evidence is in the two signed offers that
    the certificates carry.
    """
    first: dict[Key, Receipt] = {}
    found: list[Offence] = []
    for receipt in sorted(receipts, key=lambda one: (one.key, one.rank)):
        known = before.get(receipt.key) or first.setdefault(receipt.key, receipt)
        account = receipt.account or known.account
        if (known.contribution, known.samples) != (
            receipt.contribution,
            receipt.samples,
        ) and account is not None:
            said = sorted(
                (one.contribution, one.samples.to_bytes(8, "big")) for one in (known, receipt)
            )
            evidence = digest(
                _EVIDENCE,
                receipt.peer.encode(),
                receipt.seq.to_bytes(8, "big"),
                *(part for one in said for part in one),
            )
            reason = f"{short(receipt.peer)} signed two different offers as seq {receipt.seq}"
            samples = max(known.samples, receipt.samples)
            found.append(
                Offence(
                    epoch=epoch, account=account, evidence=evidence, reason=reason, samples=samples
                )
            )
    return found
