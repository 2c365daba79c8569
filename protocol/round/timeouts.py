"""How long a phase of a plan may take: what the plan predicts, with room to spare, within the
manifest's limits.

The manifest's deadlines are for a run's whole life and for whatever network its members have; they
are tens of seconds. A plan that knows its network says how long its exchange takes. Whoever needs
several times that is waited for no longer: its work waits for the next round, and everybody else
goes on. A prediction may be wrong, as after a network changed at once, so each view that came to
nothing doubles what the next one allows, up to the manifest's limit. All of it follows from the
plan, so that members and leader wait alike.
"""

from __future__ import annotations

from protocol.planning.plan import OpenPlan
from protocol.run.manifest import RoundRules

ROOM = (
    # Times the prediction of the whole exchange, for each half of it: predictions are within a
    # quarter, and machines have other work.
    2.0
)
MOST_DOUBLINGS = 16


def scatter_s(plan: OpenPlan, rules: RoundRules) -> float:
    """Until the leader cuts with what is held."""
    return _within(rules.scatter_s, plan, rules)


def gather_s(plan: OpenPlan, rules: RoundRules) -> float:
    """From a cut until the leader names substitutes for whoever owes a slice."""
    return _within(rules.gather_s, plan, rules)


def _within(limit_s: float, plan: OpenPlan, rules: RoundRules) -> float:
    """Never less than `ready_s`, by which the run says how long an answer may take; all that it
    allows where nothing is predicted.
    """
    told = plan.plan.predicted_s
    if told is None:
        return limit_s
    return min(
        limit_s, max(rules.ready_s, ROOM * told) * 2.0 ** min(plan.plan.view, MOST_DOUBLINGS)
    )
