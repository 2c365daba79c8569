"""What came out of a demo: certified rounds gathered from the daemons' statuses, and the figures
drawn from them.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from daemon.demo.agreement import Agreement
from protocol.status import RoundSummary, Status
from protocol.status.figures import tokens

MISSED = "missed"


class ClaimedReward(msgspec.Struct, frozen=True, kw_only=True):
    """One volunteer's reward: what arrived at its payout address, in base units as text."""

    name: str
    account: str
    payout: str
    samples: int  # as it told the chain
    amount: str
    # It computed the root from its own certificates, and it was the chain's.
    verified: bool


class RewardSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a demo with a chain paid, and whether it adds up."""

    pool: str
    paid: tuple[ClaimedReward, ...]

    @property
    def total(self) -> int:
        return sum(int(one.amount) for one in self.paid)

    @property
    def good(self) -> bool:
        return self.total == int(self.pool) and all(one.verified for one in self.paid)


class DemoResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The demo's result, field for field what `demo --json` prints.

    `payout` is there when the demo had a chain.
    """

    peers: int
    rounds_certified: int
    agreement: bool
    loss_first: float | None
    loss_last: float | None
    samples_per_second: float
    bytes_sent: int
    payout: RewardSummary | None = None

    @property
    def good(self) -> bool:
        return (
            self.rounds_certified > 0
            and self.agreement
            and (self.payout is None or self.payout.good)
        )


class RoundTally:
    """Everything certified while the demo looked, each round once, and each daemon's last word."""

    def __init__(self, began_at: float) -> None:
        """`began_at` is when training could begin (unix seconds)."""
        self._began_at = began_at
        self._rounds: dict[int, RoundSummary] = {}
        self._last: dict[str, Status] = {}

    @property
    def rounds(self) -> int:
        """How many rounds were certified, as far as any daemon has verified."""
        return max((status.run.number for status in self._last.values()), default=0)

    @property
    def run(self) -> str:
        """The run's id in hex; empty before any daemon answered."""
        return next((status.run.run for status in self._last.values()), "")

    def reached(self, name: str) -> int:
        """How far the daemon `name` has come."""
        return self._last[name].run.number if name in self._last else 0

    def heard(self, name: str) -> bool:
        """Whether the daemon `name` ever answered."""
        return name in self._last

    def take(self, statuses: Mapping[str, Status | None]) -> list[RoundSummary]:
        """Look at what the daemons say; returns the rounds not seen before, oldest first."""
        fresh: dict[int, RoundSummary] = {}
        for name, status in statuses.items():
            if status is None:
                continue
            self._last[name] = status
            for certified in status.rounds:
                if certified.outcome != MISSED and certified.number not in self._rounds:
                    fresh.setdefault(certified.number, certified)
        self._rounds |= fresh
        return [fresh[number] for number in sorted(fresh)]

    def verdict(
        self, peers: int, agreement: Agreement, payout: RewardSummary | None = None
    ) -> DemoResult:
        rounds = [self._rounds[number] for number in sorted(self._rounds)]
        losses = [certified.loss for certified in rounds if certified.loss is not None]
        return DemoResult(
            peers=peers,
            rounds_certified=self.rounds,
            agreement=agreement.agreed,
            loss_first=losses[0] if losses else None,
            loss_last=losses[-1] if losses else None,
            samples_per_second=round(self._samples_per_second(rounds), 2),
            bytes_sent=sum(
                status.network.control_sent + status.network.bulk_sent
                for status in self._last.values()
            ),
            payout=payout,
        )

    def _samples_per_second(self, rounds: list[RoundSummary]) -> float:
        """Certified samples over the time they took, exchanging included."""
        if not rounds:
            return 0.0
        counted, began_at = (
            (rounds[1:], rounds[0].at) if len(rounds) > 1 else (rounds, self._began_at)
        )
        seconds = rounds[-1].at - began_at
        return sum(certified.samples for certified in counted) / seconds if seconds > 0 else 0.0


def round_line(certified: RoundSummary, peers: int) -> str:
    """One certified round in one line."""
    loss = "no loss told" if certified.loss is None else f"loss {certified.loss:.4f}"
    seconds = sum(certified.phase_seconds.values())
    took = f", {seconds:.1f} s" if seconds else ""
    return f"round {certified.number}: {len(certified.contributors)} of {peers} contributed {certified.samples:,} samples, {loss}{took}"


def result_text(verdict: DemoResult, agreement: Agreement) -> str:
    """The verdict for people, the answer first."""
    if verdict.rounds_certified == 0:
        first = f"No round was certified by {verdict.peers} peers."
    elif not verdict.agreement:
        first = f"{_rounds(verdict)} certified by {verdict.peers} peers, but they do NOT agree: {agreement.reason}."
    else:
        first = f"{_rounds(verdict)} certified by {verdict.peers} peers, and they agree byte for byte: {agreement.reason}."
    loss = (
        "unknown"
        if verdict.loss_first is None
        else f"{verdict.loss_first:.4f} -> {verdict.loss_last:.4f}"
    )
    return "\n".join(
        [
            first,
            f"  loss        {loss}",
            f"  samples/s   {verdict.samples_per_second:,.1f}",
            f"  bytes sent  {verdict.bytes_sent:,}",
            *(_payout_lines(verdict.payout) if verdict.payout else []),
        ]
    )


def _payout_lines(payout: RewardSummary) -> list[str]:
    """What each claimed, and the sum beside the pool."""
    wide = max((len(one.name) for one in payout.paid), default=0)
    lines = [
        f"    {one.name:<{wide}}  {tokens(int(one.amount)):>24}  at {one.payout}"
        for one in payout.paid
    ]
    adds = (
        "exactly the pool"
        if payout.total == int(payout.pool)
        else f"the pool was {tokens(int(payout.pool))}"
    )
    return ["  claimed", *lines, f"    {'sum':<{wide}}  {tokens(payout.total):>24}  {adds}"]


def _rounds(verdict: DemoResult) -> str:
    return (
        "1 round was"
        if verdict.rounds_certified == 1
        else f"{verdict.rounds_certified} rounds were"
    )
