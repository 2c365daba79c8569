"""Named stories of members that are out of phase.

A member that is out of phase is in another view than the others when they plan. It may cost the
others no more than a moment, and it must come back.
"""

from __future__ import annotations

from simulator.faults import fault as f
from simulator.scenarios.story import QUICK, Make, Wanted, plain

ROUND_S = QUICK.seconds
# How far the member is out of phase: longer than two waits of a follower with `QUICK`.
PHASE_S = 3.0

OUT_OF_PHASE: dict[str, Make] = {
    # It waits in views 0, 1 and 2 while the others train. They reach view 0 when it is in a later
    # view, and its first offer is still there.
    f"out-of-phase-{name}": plain(
        f"out-of-phase-{name}",
        60.0,
        5,
        lambda n, by_s=by_s: (
            f.Shift(node=1, by_s=by_s, when=f.FaultTrigger(enters="train", node=1, number=3)),
        ),  # type: ignore[misc]
        wanted=Wanted(rounds=8, longest_round_s=ROUND_S + 2.5, drops_only_passed=True),
    )
    for name, by_s in (("early", -PHASE_S), ("late", PHASE_S))
}
