"""Named stories: what happens to volunteers' machines, and what the swarm must reach.

Every story must also keep the invariants. `scenario(name, nodes, seed)` makes a story. Most are
small and quick. `CROWDS` have many nodes or last minutes, and "all" leaves them out.
"""

from __future__ import annotations

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.errors import UserError
from protocol.run.manifest import RoundRules
from protocol.text.nearest import nearest
from simulator.fakes.link_profiles import QUALITIES
from simulator.faults import fault as f
from simulator.scenarios.absences import AWAY
from simulator.scenarios.attackers import ATTACKERS
from simulator.scenarios.branches import BRANCHES
from simulator.scenarios.crashes import CRASHED, RECOVERY_EXCHANGES
from simulator.scenarios.crowds import CROWDS, churn, revolving_door
from simulator.scenarios.groups import between_groups, in_groups
from simulator.scenarios.liars import LIARS
from simulator.scenarios.phases import OUT_OF_PHASE
from simulator.scenarios.story import DETECTION_S, Make, Story, Wanted, plain
from simulator.scenarios.voters import VOTERS

HOUR_S = 3600.0


def _network(link: str) -> Make:
    return plain(
        f"network-{link}",
        100.0,
        6,
        lambda n: (f.Kill(node=2, at_s=40.0, back_s=15.0),),
        link=link,
        round=RoundRules(seconds=10.0),
        wanted=Wanted(rounds=4),
    )


SCENARIOS: dict[str, Make] = {
    "calm": plain("calm", 60.0, 4, lambda n: (), wanted=Wanted(rounds=9, goodput_of_bound=1.0)),
    "learning": plain(
        "learning",
        60.0,
        4,
        lambda n: (),
        marked=False,
        codec="bfloat16",
        wanted=Wanted(rounds=9, learns=True),
    ),
    **CRASHED,
    **AWAY,
    "churn": churn("churn", 16, 8),
    "revolving-door": revolving_door,
    "corrupt": plain(
        "corrupt",
        60.0,
        5,
        lambda n: (f.Corrupt(node=1, share=0.3, at_s=8.0, for_s=30.0),),
        wanted=Wanted(rounds=4, refused=((1, "unsigned"),)),
    ),
    "lossy": plain(
        "lossy",
        80.0,
        5,
        lambda n: (
            f.Lose(node=0, share=0.3, at_s=8.0, for_s=30.0),
            f.Duplicate(node=1, share=1.0, at_s=8.0, for_s=30.0),
            f.Reorder(node=2, share=0.5, late_s=0.5, at_s=8.0, for_s=30.0),
        ),
        wanted=Wanted(rounds=4),
    ),
    "two-leaders": plain(
        "two-leaders",
        50.0,
        6,
        # The leader's messages are late both ways: half of the swarm passes it over while it still
        # plans.
        lambda n: (
            f.Reorder(
                node=f.NODE_AT_STEP,
                share=0.0,
                late_s=3.0,
                for_s=12.0,
                when=f.FaultTrigger(enters="ready", role="leader", number=2),
            ),
        ),
        wanted=Wanted(rounds=4),
    ),
    "asleep": plain(
        "asleep",
        660.0,
        4,
        lambda n: (f.Pause(node=1, at_s=22.0, for_s=600.0),),
        wanted=Wanted(rounds=80),
    ),
    "clock-skew": plain(
        "clock-skew",
        80.0,
        5,
        lambda n: (
            f.SkewClock(node=0, by_s=HOUR_S, at_s=0.0),
            f.SkewClock(node=1, by_s=-HOUR_S, at_s=0.0),
            f.SkewClock(node=2, by_s=-HOUR_S, at_s=20.0),
            f.SkewClock(node=0, by_s=-2 * HOUR_S, at_s=30.0),
        ),
        wanted=Wanted(rounds=11),
    ),
    "straggler": plain(
        "straggler",
        60.0,
        5,
        lambda n: (f.Straggle(node=1, speed=0.05, rate_bps=2e5, at_s=8.0, for_s=30.0),),
        wanted=Wanted(rounds=5),
    ),
    "too-slow": plain(
        "too-slow",
        100.0,
        6,
        lambda n: (f.Straggle(node=1, speed=1.0, rate_bps=2e5, at_s=32.0, for_s=40.0),),
        round=RoundRules(seconds=5.0, ready_s=1.0, scatter_s=20.0, gather_s=20.0, vote_s=2.0),
        link="narrow",
        parameters=60 * CHUNK_ELEMENTS,
        wanted=Wanted(rounds=10, drops_only_passed=True),
    ),
    "trainer-crash": plain(
        "trainer-crash",
        50.0,
        4,
        lambda n: (
            f.CrashTrainer(node=1, at_s=8.0),
            f.CrashTrainer(
                node=2, when=f.FaultTrigger(enters="offer", node=2, number=3, after_s=0.1)
            ),
        ),
        wanted=Wanted(rounds=7),
    ),
    "diverged": plain(
        "diverged", 50.0, 4, lambda n: (f.Diverge(node=1, at_s=8.0),), wanted=Wanted(rounds=7)
    ),
    "disk-full": plain(
        "disk-full",
        70.0,
        4,
        lambda n: (f.FillDisk(node=1, at_s=8.0, for_s=25.0),),
        wanted=Wanted(rounds=6),
    ),
    **OUT_OF_PHASE,
    **LIARS,
    **{f"network-{quality}": _network(quality) for quality in QUALITIES},
    "network-world": _network("world"),
}

IN_GROUPS: dict[str, Make] = {
    **in_groups(SCENARIOS),
    **between_groups(
        Wanted(rounds=5, detection_s=DETECTION_S, recovery_exchanges=RECOVERY_EXCHANGES),
        Wanted(rounds=5, detection_s=DETECTION_S),
    ),
}
"""Stories of several groups: all stories above again, and what can happen between groups."""


TRUST: dict[str, Make] = {**BRANCHES, **VOTERS, **ATTACKERS}
"""Stories of rules 4: who votes, what becomes of branches, and who attacks."""

TABLES = (SCENARIOS, IN_GROUPS, TRUST, CROWDS)
"""Every named story."""


def scenario(name: str, nodes: int | None, seed: int) -> Story:
    """Make a named story.

    Raises:
        UserError: With code SCENARIO and the nearest name, for an unknown name.
    """
    make = next((table[name] for table in TABLES if name in table), None)
    if make is None:
        meant = nearest(name, [*(each for table in TABLES for each in table), "membership"])
        nearest_name = f"the nearest name is {meant}" if meant else ""
        raise UserError(
            "SCENARIO",
            f"Unknown scenario {name!r}.",
            why=nearest_name,
            fix="list them with `hypergpud simulate --list`",
            exit_code=2,
        )
    return make(nodes, seed)
