"""The result of a demo, from the statuses of its daemons. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from daemon.demo.agreement import Agreement
from daemon.demo.comparison import Comparison, comparison_text
from protocol.status import RoundSummary, Status
from protocol.status.figures import tokens

MISSED = "missed"


class ClaimedReward(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived at the payout address of one daemon, in base units as text."""

    name: str
    account: str
    payout: str
    # As its heartbeat reported to the chain.
    samples: int
    amount: str
    # Whether the root that it computed from its own certificates is the chain's.
    verified: bool


class RewardSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a demo with a chain paid, and whether the sum is right."""

    pool: str
    paid: tuple[ClaimedReward, ...]

    @property
    def total(self) -> int:
        return sum(int(one.amount) for one in self.paid)

    @property
    def good(self) -> bool:
        return self.total == int(self.pool) and all(one.verified for one in self.paid)


class DemoResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `demo --json` prints.

    `payout` is present if the demo had a chain, `comparison` if it had a lone machine and a scored
    certificate.
    """

    peers: int
    rounds_certified: int
    agreement: bool
    loss_first: float | None
    loss_last: float | None
    samples_per_second: float
    bytes_sent: int
    payout: RewardSummary | None = None
    comparison: Comparison | None = None

    @property
    def good(self) -> bool:
        return (
            self.rounds_certified > 0
            and self.agreement
            and (self.payout is None or self.payout.good)
        )


class RoundTally:
    """The certified rounds that the demo saw, each once, and each daemon's last status."""

    def __init__(self, began_at: float) -> None:
        """`began_at` is when training could begin (unix seconds)."""
        self._began_at = began_at
        self._rounds: dict[int, RoundSummary] = {}
        self._last: dict[str, Status] = {}

    @property
    def rounds(self) -> int:
        """Rounds certified, as far as any daemon has verified."""
        return max((status.run.number for status in self._last.values()), default=0)

    @property
    def run(self) -> str:
        """The run's id in hex; empty until a daemon answers."""
        return next((status.run.run for status in self._last.values()), "")

    def reached(self, name: str) -> int:
        """Return the last round that the daemon `name` has verified."""
        return self._last[name].run.number if name in self._last else 0

    def heard(self, name: str) -> bool:
        """Return whether the daemon `name` ever answered."""
        return name in self._last

    def update(self, statuses: Mapping[str, Status | None]) -> list[RoundSummary]:
        """Add the statuses. Returns the rounds that are new, oldest first."""
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

    def result(
        self,
        peers: int,
        agreement: Agreement,
        payout: RewardSummary | None = None,
        comparison: Comparison | None = None,
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
            comparison=comparison,
        )

    def _samples_per_second(self, rounds: list[RoundSummary]) -> float:
        """Certified samples over the time that they took, communication included."""
        if not rounds:
            return 0.0
        counted, began_at = (
            (rounds[1:], rounds[0].at) if len(rounds) > 1 else (rounds, self._began_at)
        )
        seconds = rounds[-1].at - began_at
        return sum(certified.samples for certified in counted) / seconds if seconds > 0 else 0.0


def round_line(certified: RoundSummary, peers: int) -> str:
    """Return a certified round as one line."""
    loss = (
        "claimed loss unknown" if certified.loss is None else f"claimed loss {certified.loss:.4f}"
    )
    seconds = sum(certified.phase_seconds.values())
    took = f", {seconds:.1f} s" if seconds else ""
    who = f"{len(certified.contributors)} of {peers} contributed"
    return f"round {certified.number}: {who} {certified.samples:,} samples, {loss}{took}"


def result_text(result: DemoResult, agreement: Agreement) -> str:
    """Return the result as text, the most important fact first."""
    if result.rounds_certified == 0:
        first = f"No round was certified by {result.peers} peers."
    elif not result.agreement:
        first = (
            f"{_rounds(result)} certified by {result.peers} peers, but they do NOT agree:"
            f" {agreement.reason}."
        )
    else:
        first = (
            f"{_rounds(result)} certified by {result.peers} peers, and they agree byte for byte:"
            f" {agreement.reason}."
        )
    loss = (
        "unknown"
        if result.loss_first is None
        else f"{result.loss_first:.4f} -> {result.loss_last:.4f}"
    )
    return "\n".join(
        [
            first,
            *([comparison_text(result.comparison)] if result.comparison else []),
            f"  loss        {loss} (training, as the members claim)",
            f"  samples/s   {result.samples_per_second:,.1f}",
            f"  bytes sent  {result.bytes_sent:,}",
            *(_payout_lines(result.payout) if result.payout else []),
        ]
    )


def _payout_lines(payout: RewardSummary) -> list[str]:
    """Return what each daemon claimed, and the sum beside the pool."""
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


def _rounds(result: DemoResult) -> str:
    return (
        "1 round was" if result.rounds_certified == 1 else f"{result.rounds_certified} rounds were"
    )
