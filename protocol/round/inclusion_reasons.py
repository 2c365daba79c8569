"""Why a leader includes the contributions that it includes, or cannot include any."""

from __future__ import annotations

from protocol.averaging.inclusion import counted_reason
from protocol.identity import short
from protocol.planning.plan import OpenPlan
from protocol.round.state import RoundState

# Each further inclusion of a view loses at least one member. A view that lost eight should begin
# anew.
MAX_INCLUSIONS = 8


def failure(
    state: RoundState,
    plan: OpenPlan,
    alive: list[int],
    contributors: frozenset[int],
    *,
    enough: bool,
) -> str:
    """Say why no inclusion can be sent. `enough` says that the living members can certify."""
    view = state.view
    if not enough:
        left = f"{len(alive)} of {len(plan.members)} members are left in view {view}"
        if state.record is not None:
            return f"{left}, too few of them voters"
        least = max(plan.majority, state.context.manifest.group.min_peers)
        return f"{left}; {least} are needed"
    if not contributors:
        return f"no contribution arrived in time from the {len(alive)} members of view {view}"
    return f"{MAX_INCLUSIONS} inclusions of view {view} failed"


def inclusion_reason(
    state: RoundState,
    number: int,
    alive: list[int],
    contributors: frozenset[int],
    without: frozenset[int],
) -> str:
    """Say how many contributions count, and why the others do not."""
    plan = state.plan
    assert plan is not None
    late = state.leader_state.slow
    slow = [short(peer) for peer in plan.members if peer in late]
    lost = [
        short(peer) for i, peer in enumerate(plan.members) if i not in alive and peer not in late
    ]
    offered = sum(bool(offer.samples) for offer in plan.offers)
    reason = counted_reason(len(contributors), offered)
    if number > 1:
        reason += f" after {number - 1} earlier inclusions failed"
    if without:
        reason += f", without {', '.join(short(plan.members[i]) for i in sorted(without))}"
    if slow:
        reason += f"; late: {', '.join(slow)} (their work counts in the next round)"
    if lost:
        reason += f"; lost: {', '.join(lost)}"
    return reason
