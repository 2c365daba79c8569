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
from simulator.scenarios.crowds import CROWDS, churn, revolving_door
from simulator.scenarios.groups import between_groups, in_groups
from simulator.scenarios.liars import LIARS
from simulator.scenarios.phases import OUT_OF_PHASE
from simulator.scenarios.story import DETECTION_S, SLOW_ROUNDS, Make, Story, Wanted, plain

# A fault-free exchange on links of 20 ms: half a second for the current training step, and ten
# one-way trips.
EXCHANGE_S = 0.75
# To the next certificate after a single crash, without training: detection and two exchanges.
RECOVERY_S = 0.5 + 2 * EXCHANGE_S
# The same, in exchanges of the same world.
RECOVERY_EXCHANGES = 2.0
HOUR_S = 3600.0

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
            schedule=(f.Kill(node=f.WHOEVER, when=when),),
            wanted=Wanted(
                rounds=5,
                detection_s=DETECTION_S,
                recovery_exchange_s=RECOVERY_S,
                recovery_exchanges=RECOVERY_EXCHANGES,
            ),
        )

    return make


def _halves(n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(range(n // 2)), tuple(range(n // 2, n))


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
                node=f.WHOEVER,
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
                node=f.WHOEVER,
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
                node=f.WHOEVER,
                when=f.FaultTrigger(enters="scatter", role="member", number=2, after_s=0.01),
            ),
            f.Kill(
                node=f.WHOEVER,
                when=f.FaultTrigger(enters="reduce", role="member", number=2, after_s=0.01),
            ),
            f.Kill(node=f.WHOEVER, when=f.FaultTrigger(enters="vote", role="leader", number=3)),
            f.Kill(node=f.WHOEVER, when=f.FaultTrigger(enters="ready", role="leader", number=4)),
            f.Kill(
                node=f.WHOEVER,
                when=f.FaultTrigger(enters="reduce", role="leader", number=5, after_s=0.02),
            ),
        ),
        wanted=Wanted(rounds=7, detection_s=DETECTION_S),
    ),
    "partition": plain(
        "partition",
        90.0,
        6,
        lambda n: (f.Partition(groups=_halves(n), at_s=17.0, for_s=40.0),),
        wanted=Wanted(rounds=10),
    ),
    "partition-thrice": plain(
        "partition-thrice",
        120.0,
        6,
        lambda n: tuple(
            f.Partition(groups=_halves(n), at_s=at, for_s=18.0) for at in (12.0, 45.0, 80.0)
        ),
        wanted=Wanted(rounds=9),
    ),
    "partition-lone": plain(
        "partition-lone",
        80.0,
        5,
        lambda n: (f.Partition(groups=((0,),), at_s=17.0, for_s=35.0),),
        wanted=Wanted(rounds=9),
    ),
    "one-path-cut": plain(
        "one-path-cut",
        80.0,
        5,
        lambda n: (f.Sever(node=0, other=1, at_s=12.0, for_s=40.0),),
        wanted=Wanted(rounds=5),
    ),
    "latency-500ms": plain(
        "latency-500ms",
        140.0,
        5,
        lambda n: (f.Kill(node=1, at_s=50.0, back_s=20.0),),
        link="farthest",
        round=SLOW_ROUNDS,
        wanted=Wanted(rounds=4),
    ),
    "restart": plain(
        "restart",
        60.0,
        4,
        lambda n: tuple(f.Kill(node=i, at_s=20.0 + 0.1 * i, back_s=5.0) for i in range(n)),
        wanted=Wanted(rounds=6),
    ),
    "power-cut-in-vote": plain(
        "power-cut-in-vote",
        60.0,
        4,
        # All nodes lose power when all have voted and none has certified. They come back one after
        # the other, into the middle of the round.
        lambda n: tuple(
            f.Kill(
                node=i,
                when=f.FaultTrigger(enters="vote", node=i, number=3, after_s=0.002),
                back_s=3.0 + i,
            )
            for i in range(n)
        ),
        wanted=Wanted(rounds=6),
    ),
    "certified-while-away": plain(
        "certified-while-away",
        90.0,
        4,
        # A member is cut off after its slices left, and the others certify them. It trains on alone
        # and offers that work and more. It is restarted, and hears of the certificate only then.
        lambda n: (
            f.Partition(
                groups=((1,),),
                when=f.FaultTrigger(enters="reduce", node=1, number=3, after_s=0.03),
                for_s=45.0,
            ),
            f.Kill(node=1, at_s=45.0, back_s=3.0),
        ),
        wanted=Wanted(rounds=10, drops_only_passed=True),
    ),
    "restart-one": plain(
        "restart-one",
        60.0,
        4,
        lambda n: (f.Kill(node=1, at_s=21.0, back_s=8.0),),
        wanted=Wanted(rounds=8),
    ),
    "joining": plain(
        "joining",
        60.0,
        6,
        lambda n: tuple(f.Start(node=i, at_s=4.0 + 7.3 * i) for i in range(3, n)),
        starts=(0, 1, 2),
        wanted=Wanted(rounds=8),
    ),
    "lone-nodes-meet": plain(
        "lone-nodes-meet",
        40.0,
        2,
        lambda n: (f.Start(node=1, at_s=17.0),),
        starts=(0,),
        wanted=Wanted(rounds=2),
    ),
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
                node=f.WHOEVER,
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
        lambda n: (f.Straggle(node=1, speed=0.05, bits_per_second=2e5, at_s=8.0, for_s=30.0),),
        wanted=Wanted(rounds=5),
    ),
    "too-slow": plain(
        "too-slow",
        100.0,
        6,
        lambda n: (f.Straggle(node=1, speed=1.0, bits_per_second=2e5, at_s=32.0, for_s=40.0),),
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


def scenario(name: str, nodes: int | None, seed: int) -> Story:
    """Make a named story.

    Raises:
        UserError: With code SCENARIO and the nearest name, for an unknown name.
    """
    make = SCENARIOS.get(name) or IN_GROUPS.get(name) or CROWDS.get(name)
    if make is None:
        meant = nearest(name, [*SCENARIOS, *IN_GROUPS, *CROWDS, "membership"])
        nearest_name = f"the nearest name is {meant}" if meant else ""
        raise UserError(
            "SCENARIO",
            f"Unknown scenario {name!r}.",
            why=nearest_name,
            fix="list them with `hypergpud simulate --list`",
            exit_code=2,
        )
    return make(nodes, seed)
