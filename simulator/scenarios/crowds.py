"""Named stories of many members, and of members that come and go all the time."""

from __future__ import annotations

import random

from protocol.rules.versions import CURRENT_RULES
from protocol.run.manifest import RoundRules
from simulator.faults import fault as f
from simulator.scenarios.story import DETECTION_S, SLOW_ROUNDS, Make, Story, Wanted, plain


def churn(
    name: str,
    count: int,
    minutes: int,
    wanted: Wanted | None = None,
    rules: int = CURRENT_RULES,
    round_rules: RoundRules = SLOW_ROUNDS,
) -> Make:
    """Thirty percent of the nodes die every minute at random moments and come back later.

    `wanted` None stands for the usual figures.
    """
    usual = Wanted(rounds=2 * minutes, goodput_of_bound=0.97, detection_s=DETECTION_S)

    def make(nodes: int | None, seed: int) -> Story:
        n = nodes or count
        rng = random.Random(f"churn {seed}")
        schedule = tuple(
            f.Kill(
                node=node,
                at_s=60.0 * minute + round(rng.uniform(0, 60), 3),
                back_s=round(rng.uniform(5, 60), 3),
            )
            for minute in range(minutes)
            for node in rng.sample(range(n), round(0.3 * n))
        )
        return Story(
            name=name,
            nodes=n,
            seed=seed,
            seconds=60.0 * minutes,
            schedule=schedule,
            round=round_rules,
            rules=rules,
            wanted=wanted or usual,
        )

    return make


def revolving_door(nodes: int | None, seed: int) -> Story:
    """Every second a node joins or leaves; a few stay."""
    n = max(nodes or 10, 5)
    rng = random.Random(f"door {seed}")
    schedule: list[f.AnyFault] = []
    inside = {i: i < 5 for i in range(n)}
    for second in range(5, 60):
        node = rng.randrange(3, n)
        schedule.append(
            f.LeaveFault(node=node, at_s=float(second))
            if inside[node]
            else f.Start(node=node, at_s=float(second))
        )
        inside[node] = not inside[node]
    return Story(
        name="revolving-door",
        nodes=n,
        seed=seed,
        seconds=70.0,
        schedule=tuple(schedule),
        starts=tuple(range(5)),
        wanted=Wanted(rounds=6),
    )


CROWDS: dict[str, Make] = {
    "many": plain(
        "many",
        # Afterwards the story goes on until everybody holds the first certificate and its anchor.
        10.0,
        1000,
        lambda n: (),
        round=RoundRules(seconds=20.0, min_seconds=20.0, ready_s=5.0),
        parameters=256,
        max_group=64,
        settle_timeout_s=120.0,
        wanted=Wanted(rounds=1),
    ),
    "churn-long": churn("churn-long", 24, 30),
    "crowd": plain(
        "crowd",
        45.0,
        100,
        lambda n: (),
        round=RoundRules(seconds=30.0, min_seconds=30.0),
        link="world",
        max_group=64,
        settle_timeout_s=120.0,
        wanted=Wanted(rounds=1),
    ),
}
