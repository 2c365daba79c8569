"""Cumulative totals: what each account has earned up to an epoch, and may claim.

- Only certified samples are paid: not time, not what a heartbeat says, not the size of a gradient.
- A (peer, seq) is paid once, however many certificates list it and however often its node restarts.
- Work without a binding counts but earns nothing.
- Work of an account that sends no heartbeat waits. It is paid in the next epoch with a heartbeat,
  or it lapses.
- A pool is never divided again. Totals only grow, and a claim pays the total less what was claimed.
  So claims are no input here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from protocol.settlement.receipts import Account, Key, Receipt
from protocol.settlement.rules import SettlementRules
from protocol.settlement.sanctions import (
    NEVER,
    Offence,
    Sanction,
    SanctionStep,
    equivocations,
    judge,
)
from protocol.settlement.shares import share_pool


class EpochWork(msgspec.Struct, frozen=True, kw_only=True):
    """The input of one epoch.

    `silent` are the accounts that worked in it and sent no heartbeat. They are few, unlike those
    that did.
    """

    pool: int
    receipts: tuple[Receipt, ...]
    silent: frozenset[Account] = frozenset()
    offences: tuple[Offence, ...] = ()


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """Why counted work is not paid, or not yet, for the person to whom it belongs."""

    account: Account | None
    samples: int
    reason: str


class SettlementTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The result after the last epoch.

    `totals` goes into the root and is claimable for ever. `paid_in_epochs` has the earnings of each
    epoch after sanctions.
    """

    totals: dict[Account, int]
    locked: dict[Account, int]
    paid_in_epochs: tuple[dict[Account, int], ...]
    sanctions: tuple[Sanction, ...]
    withheld: tuple[Withheld, ...]

    @property
    def total(self) -> int:
        return sum(self.totals.values())


class _Books:
    """The running account of `settle`."""

    def __init__(self, rules: SettlementRules) -> None:
        self.rules = rules
        # The first receipt of each key that was ever counted, paid or not.
        self.first: dict[Key, Receipt] = {}
        # Unpaid receipts, with the epoch in which they were counted.
        self.waiting: dict[Key, tuple[int, Receipt]] = {}
        self.earned: list[dict[Account, int]] = []
        # Samples to subtract from later earnings.
        self.debts: defaultdict[Account, int] = defaultdict(int)
        self.offences: list[Offence] = []
        self.sanctions: list[Sanction] = []

    def stopped(self, epoch: int) -> dict[Account, Sanction]:
        """Return the accounts that earn nothing in `epoch`, each with the sanction that says so.

        Later sanctions replace earlier ones, because steps only rise.
        """
        return {
            one.account: one for one in self.sanctions if one.until == NEVER or one.until > epoch
        }

    def sanction(self, epoch: int, found: Sequence[Offence]) -> None:
        self.offences += found
        known = len(self.sanctions)
        self.sanctions = judge(self.offences, self.rules)
        for sanction in self.sanctions[known:]:
            self.debts[sanction.account] += sanction.samples
            if sanction.step >= SanctionStep.FORFEIT:
                for locked in self.earned[max(0, epoch - self.rules.lock_epochs) :]:
                    locked.pop(sanction.account, None)


def settle(epochs: Sequence[EpochWork], rules: SettlementRules) -> SettlementTotals:
    """Settle all epochs, oldest first.

    Deterministic: the order of receipts within an epoch does not matter.
    """
    books = _Books(rules)
    withheld: list[Withheld] = []
    for epoch, work in enumerate(epochs):
        # An offence counts in the epoch in which it was found: a late judgment must not change what
        # earlier epochs paid.
        reported = tuple(msgspec.structs.replace(one, epoch=epoch) for one in work.offences)
        books.sanction(epoch, [*equivocations(epoch, work.receipts, books.first), *reported])
        stopped = books.stopped(epoch)
        for receipt in sorted(work.receipts, key=lambda one: (one.key, one.order)):
            if receipt.unpaid:
                continue
            if receipt.key not in books.first:
                books.first[receipt.key] = receipt
                if receipt.account is not None:
                    books.waiting[receipt.key] = (epoch, receipt)
        withheld = [
            Withheld(account=None, samples=one.samples, reason="the offer named no wallet")
            for one in work.receipts
            if one.account is None
        ]
        withheld += [
            Withheld(account=one.account, samples=one.samples, reason=one.unpaid)
            for one in work.receipts
            if one.unpaid and one.account is not None
        ]
        withheld += [
            Withheld(
                account=one.account,
                samples=one.samples - one.paid_samples,
                reason="more than 2 times its own or 16 times the voters' usual work",
            )
            for one in work.receipts
            if not one.unpaid and one.account is not None and one.paid_samples < one.samples
        ]
        weights: defaultdict[Account, int] = defaultdict(int)
        for key, (since, receipt) in sorted(books.waiting.items()):
            account = receipt.account
            assert account is not None
            if (sanction := stopped.get(account)) is not None:
                del books.waiting[key]
                withheld.append(
                    Withheld(
                        account=account,
                        samples=receipt.paid_samples,
                        reason=f"{sanction.step.name.lower()}: {sanction.reason}",
                    )
                )
            elif account not in work.silent:
                del books.waiting[key]
                weights[account] += receipt.paid_samples
            elif epoch - since >= rules.held_epochs:
                del books.waiting[key]
                reason = f"no heartbeat for {epoch - since + 1} epochs: the work lapsed"
                withheld.append(Withheld(account=account, samples=receipt.samples, reason=reason))
            else:
                withheld.append(
                    Withheld(
                        account=account,
                        samples=receipt.samples,
                        reason="no heartbeat in this epoch: the work waits",
                    )
                )
        for account in weights:
            subtracted = min(weights[account], books.debts[account])
            weights[account] -= subtracted
            books.debts[account] -= subtracted
        books.earned.append(
            {
                account: amount
                for account, amount in share_pool(work.pool, weights).items()
                if amount
            }
        )
    return _settled(books, withheld)


def _settled(books: _Books, withheld: list[Withheld]) -> SettlementTotals:
    open_until = len(books.earned) - books.rules.lock_epochs
    totals: defaultdict[Account, int] = defaultdict(int)
    locked: defaultdict[Account, int] = defaultdict(int)
    for epoch, earned in enumerate(books.earned):
        for account, amount in earned.items():
            (totals if epoch < open_until else locked)[account] += amount
    return SettlementTotals(
        totals=dict(sorted(totals.items())),
        locked=dict(sorted(locked.items())),
        paid_in_epochs=tuple(books.earned),
        sanctions=tuple(books.sanctions),
        withheld=tuple(withheld),
    )
