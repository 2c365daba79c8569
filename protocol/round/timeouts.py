"""How long a phase of a plan may take: several times the prediction, within the manifest's limits.

The manifest's deadlines hold for a run's whole life and for any network; they are tens of seconds.
A plan that knows its network predicts the time of its exchange. If a member needs several times
that, the others go on without it, and its work waits for the next round.

A prediction can be wrong, for example just after a network changed. So each failed view doubles
what the next one allows, up to the manifest's limit. All timeouts follow from the plan: members and
leader wait alike.
"""

from __future__ import annotations

from protocol.planning.plan import OpenPlan
from protocol.run.manifest import RoundRules

# Each half of the exchange may take this many times the prediction of the whole. Predictions are
# within a quarter, and machines have other work.
PREDICTION_MARGIN = 2.0
MOST_DOUBLINGS = 16
# After this share of the scatter's time, a reducer reports what it holds, whole or not.
REPORT_SHARE = 0.5


def scatter_s(plan: OpenPlan, rules: RoundRules) -> float:
    """The time until the leader closes the inclusion with what the reducers hold."""
    return _within(rules.scatter_s, plan, rules)


def gather_s(plan: OpenPlan, rules: RoundRules) -> float:
    """The time from an inclusion until the leader replaces members that owe a slice."""
    return _within(rules.gather_s, plan, rules)


def _within(limit_s: float, plan: OpenPlan, rules: RoundRules) -> float:
    """The timeout between `ready_s` and `limit_s`; `limit_s` where nothing is predicted.

    `ready_s` is how long the run allows for an answer.
    """
    predicted_s = plan.plan.predicted_s
    if predicted_s is None:
        return limit_s
    timeout_s = max(rules.ready_s, PREDICTION_MARGIN * predicted_s)
    return min(limit_s, timeout_s * 2.0 ** min(plan.plan.view, MOST_DOUBLINGS))
