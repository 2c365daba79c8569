"""What a run pays and what a swarm serves, as lines of `hypergpud status`."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.status import Status
from protocol.status.coverage_records import CoverageSummary
from protocol.status.figures import duration, quantity, tokens
from protocol.status.reward_records import RewardsSummary


def rewards_lines(status: Status) -> list[str]:
    """Return the sentence about rewards, and what the chain holds where that is known."""
    money = status.money
    if money is None or not money.pool:
        return [status.rewards]
    return [status.rewards, *_of_account(money, status.as_of), _of_pool(money, status.as_of)]


def _of_account(money: RewardsSummary, now: float) -> Sequence[str]:
    if not money.claimable:
        return ()
    words = f"{_amount(money.claimable)} claimable"
    if money.claimable.strip("0"):
        words += " (hypergpud rewards claim)"
    if money.pending.strip("0"):
        when = f" in {duration(money.pending_at_s - now)}" if money.pending_at_s > now else ""
        words += f", {_amount(money.pending)} more{when}"
    return (words,)


def _of_pool(money: RewardsSummary, now: float) -> str:
    words = f"pool: {_amount(money.pool)}"
    if money.paused:
        words += ", paused"
    if money.epoch_ends_at_s > now:
        words += f", next settlement in {duration(money.epoch_ends_at_s - now)}"
    return words


def _amount(base_units: str) -> str:
    return f"{tokens(int(base_units))} tokens" if base_units else "an unknown amount"


def coverage_lines(status: Status) -> list[str]:
    """Return one line for each model that the swarm serves."""
    return [_coverage(one) for one in status.coverage]


def _coverage(one: CoverageSummary) -> str:
    stages = quantity(len(one.stages), "stage")
    if not one.missing:
        return f"{one.name}: all layers are served, by {stages}"
    gaps = ", ".join(
        f"{span.first} to {span.last}" if span.last > span.first else str(span.first)
        for span in one.spans
        if not span.holders
    )
    return f"{one.name}: nobody serves layers {gaps} of 0 to {one.layers - 1}; {stages}"
