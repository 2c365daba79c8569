"""Named stories of nodes that die in the middle of a round."""

from __future__ import annotations

from simulator.faults import fault as f
from simulator.scenarios.story import DETECTION_S, Make, Story, Wanted, plain

# A fault-free exchange on links of 20 ms: half a second for the current training step, and ten
# one-way trips.
EXCHANGE_S = 0.75
# To the next certificate after a single crash, without training: detection and two exchanges.
RECOVERY_S = 0.5 + 2 * EXCHANGE_S
# The same, in exchanges of the same world.
RECOVERY_EXCHANGES = 2.0

CRASHES: dict[str, tuple[str, float]] = {
    "ready": ("ready", 0.0),
    "scatter-before": ("scatter", 0.0),
    "scatter-in": ("scatter", 0.03),
    "cut": ("reduce", 0.0),
    "reduce": ("reduce", 0.01),
    "gather": ("reduce", 0.03),
    "vote-before": ("vote", 0.0),
    "vote-after": ("vote", 0.01),
    "adopt": ("adopt", 0.0),
}
"""Where a node can die in a round: the phase, and the seconds into the phase.

On links of 20 ms, slices are under way for 20 to 60 ms.
"""


def _crash(role: str, step: str) -> Make:
    enters, after_s = CRASHES[step]

    def make(nodes: int | None, seed: int) -> Story:
        when = f.FaultTrigger(enters=enters, role=role, number=3, after_s=after_s)
        return Story(
            name=f"crash-{role}-{step}",
            nodes=nodes or 5,
            seed=seed,
            seconds=30.0,
            schedule=(f.Kill(node=f.NODE_AT_STEP, when=when),),
            wanted=Wanted(
                rounds=5,
                detection_s=DETECTION_S,
                recovery_exchange_s=RECOVERY_S,
                recovery_exchanges=RECOVERY_EXCHANGES,
            ),
        )

    return make


CRASHED: dict[str, Make] = {
    **{
        f"crash-{role}-{step}": _crash(role, step)
        for role in ("member", "leader")
        for step in CRASHES
    },
    "leader-lost-thrice": plain(
        "leader-lost-thrice",
        50.0,
        7,
        lambda n: tuple(
            f.Kill(
                node=f.NODE_AT_STEP,
                when=f.FaultTrigger(enters="scatter", role="leader", number=i, after_s=0.02),
            )
            for i in (2, 3, 4)
        ),
        wanted=Wanted(rounds=6, detection_s=DETECTION_S, recovery_exchange_s=RECOVERY_S),
    ),
    "two-reducers-dead": plain(
        "two-reducers-dead",
        30.0,
        7,
        lambda n: tuple(
            f.Kill(
                node=f.NODE_AT_STEP,
                when=f.FaultTrigger(enters="reduce", role="member", number=3, after_s=after),
            )
            for after in (0.0, 0.015)
        ),
        wanted=Wanted(rounds=4, detection_s=DETECTION_S, recovery_exchange_s=RECOVERY_S),
    ),
    "cascade": plain(
        "cascade",
        60.0,
        8,
        lambda n: (
            f.Kill(
                node=f.NODE_AT_STEP,
                when=f.FaultTrigger(enters="scatter", role="member", number=2, after_s=0.01),
            ),
            f.Kill(
                node=f.NODE_AT_STEP,
                when=f.FaultTrigger(enters="reduce", role="member", number=2, after_s=0.01),
            ),
            f.Kill(
                node=f.NODE_AT_STEP, when=f.FaultTrigger(enters="vote", role="leader", number=3)
            ),
            f.Kill(
                node=f.NODE_AT_STEP, when=f.FaultTrigger(enters="ready", role="leader", number=4)
            ),
            f.Kill(
                node=f.NODE_AT_STEP,
                when=f.FaultTrigger(enters="reduce", role="leader", number=5, after_s=0.02),
            ),
        ),
        wanted=Wanted(rounds=7, detection_s=DETECTION_S),
    ),
}
