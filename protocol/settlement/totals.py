"""Cumulative totals: what each account has earned up to an epoch, and may claim.

Rules. Certified samples are the only thing that is paid: not time, not what a heartbeat says, not
the size of a gradient. A (peer, seq) is paid once, however many certificates list it and whenever
its node was started anew. Work without a binding is nobody's. Work of an account that shows no sign
of life waits, and is paid in the epoch in which there is one, or lapses. What an epoch's pool gave
is never divided again: a total only grows, and a claim pays the total less what was claimed, so
claims are no input here.
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
    """One epoch's input.

    `silent` are the accounts that worked in it and sent no heartbeat: those few, and not the many
    that did.
    """

    pool: int
    receipts: tuple[Receipt, ...]
    silent: frozenset[Account] = frozenset()
    offences: tuple[Offence, ...] = ()


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """Why counted work is not paid (yet), for the person it belongs to."""

    account: Account | None
    samples: int
    reason: str


class SettlementTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Where everybody stands after the last epoch.

    `totals` is what goes into the root: claimable for ever.
    """

    totals: dict[Account, int]
    locked: dict[Account, int]
    paid_in_epochs: tuple[dict[Account, int], ...]  # after sanctions, by epoch
    sanctions: tuple[Sanction, ...]
    withheld: tuple[Withheld, ...]

    @property
    def total(self) -> int:
        return sum(self.totals.values())


class _Books:
    """The running account of `settle`."""

    def __init__(self, rules: SettlementRules) -> None:
        self.rules = rules
        # Everything that was ever counted, paid or not.
        self.first: dict[Key, Receipt] = {}
        self.waiting: dict[Key, tuple[int, Receipt]] = {}  # with the epoch it came in
        self.earned: list[dict[Account, int]] = []
        self.debts: defaultdict[Account, int] = defaultdict(int)  # samples to be taken off
        self.offences: list[Offence] = []
        self.sanctions: list[Sanction] = []

    def stopped(self, epoch: int) -> dict[Account, Sanction]:
        """The accounts that earn nothing in `epoch`, each with the sanction that says so (the last
        one: steps only rise).
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
    """All epochs from the first on, oldest first.

    Deterministic; the order of receipts within an epoch does not matter.
    """
    books = _Books(rules)
    withheld: list[Withheld] = []
    for epoch, work in enumerate(epochs):
        # An offence counts in the epoch it was found in: judged late, it must not change what
        # earlier epochs gave.
        told = tuple(msgspec.structs.replace(one, epoch=epoch) for one in work.offences)
        books.sanction(epoch, [*equivocations(epoch, work.receipts, books.first), *told])
        stopped = books.stopped(epoch)
        for receipt in sorted(work.receipts, key=lambda one: (one.key, one.rank)):
            if receipt.key not in books.first:
                books.first[receipt.key] = receipt
                if receipt.account is not None:
                    books.waiting[receipt.key] = (epoch, receipt)
        withheld = [
            Withheld(account=None, samples=one.samples, reason="the offer named no wallet")
            for one in work.receipts
            if one.account is None
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
                        samples=receipt.samples,
                        reason=f"{sanction.step.name.lower()}: {sanction.reason}",
                    )
                )
            elif account not in work.silent:
                del books.waiting[key]
                weights[account] += receipt.samples
            elif epoch - since >= rules.held_epochs:
                del books.waiting[key]
                reason = f"no heartbeat for {epoch - since + 1} epochs; the work lapsed"
                withheld.append(Withheld(account=account, samples=receipt.samples, reason=reason))
            else:
                withheld.append(
                    Withheld(
                        account=account,
                        samples=receipt.samples,
                        reason="no heartbeat in this epoch; the work waits",
                    )
                )
        for account in weights:
            taken = min(weights[account], books.debts[account])
            weights[account] -= taken
            books.debts[account] -= taken
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
