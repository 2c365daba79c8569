"""Metrics of what the run's chain holds for this node."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from daemon.observer.trust_metrics import labelled
from protocol.status import Status
from protocol.status.figures import DECIMALS
from protocol.status.reward_records import RewardsSummary

_UNKNOWN = RewardsSummary(as_of_s=0.0, profile="")


def _tokens(amount: str) -> float:
    """Return base units as tokens, as exactly as a metric can."""
    return int(amount) / 10**DECIMALS if amount else 0.0


def reward_metrics(status: Status) -> Iterator[Metric]:
    """Yield the account's money, the pool, and when the chain last heard from the account."""
    money = status.money or _UNKNOWN
    amounts = {
        "earned": _tokens(money.earned),
        "claimed": _tokens(money.claimed),
        "claimable": _tokens(money.claimable),
        "pending": _tokens(money.pending),
    }
    yield labelled(
        GaugeMetricFamily(
            "hypergpu_rewards_tokens", "Tokens of this node's account.", labels=["state"]
        ),
        amounts,
    )
    yield GaugeMetricFamily(
        "hypergpu_pool_tokens", "Tokens that the run's pool can still pay.", _tokens(money.pool)
    )
    yield GaugeMetricFamily(
        "hypergpu_next_settlement_timestamp_seconds",
        "When the epoch whose work is being collected ends; 0 for never.",
        money.epoch_ends_at_s,
    )
    yield GaugeMetricFamily(
        "hypergpu_last_heartbeat_timestamp_seconds",
        "When the chain last heard from this node's account; 0 for never.",
        money.heartbeat_at_s,
    )
