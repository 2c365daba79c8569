"""Named stories: what happens to volunteers' machines, each with what the swarm must make of it besides keeping the invariants.

`scenario(name, nodes, seed)` gives the story. Most are small and quick; `CROWDS` are the ones with many nodes or minutes, which "all" leaves out.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from protocol.errors import UserError
from protocol.layout import CHUNK_ELEMENTS
from protocol.manifest import RoundRules
from simulator import faults as f
from simulator.liars import LIES
from simulator.profiles import QUALITIES
from simulator.row_scenarios import between_rows, in_rows
from simulator.story import Story, Wanted

DETECTION_S = 5.0  # a crash is noticed within
EXCHANGE_S = 0.75  # fault-free, on links of 20 ms: half a second for the training step under way, ten one-way trips
RECOVERY_S = 0.5 + 2 * EXCHANGE_S  # to the next certificate after a single crash, training not counted: detection and two exchanges
RECOVERY_EXCHANGES = 2.0  # the same, by what an exchange takes in the same world
HOUR_S = 3600.0
SLOW_ROUNDS = RoundRules(seconds=20.0)  # with the default deadlines
Make = Callable[[int | None, int], Story]

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
"""Where a node can die in a round: the phase, and how long it is in it. On links of 20 ms, slices are under way for 20 to 60 ms."""

NAMED: dict[str, tuple[str, ...]] = {
    "forge": ("unsigned",),
    "steal": ("identity",),
    "garbage": ("malformed",),
    "oversize": ("oversized",),
    "wrong_bytes": ("bad_proof",),
    "wrong_sum": ("wrong_sum",),
    "split_sum": ("wrong_sum",),
    "wrong_digest": ("bad_proof",),
    "wrong_vote": ("bad_proof",),
    "double_vote": ("equivocation",),
    "two_cuts": ("equivocation",),
    "bad_plan": ("bad_plan",),
    "usurp": ("not_leader",),
    "inflate": ("malformed",),
    "old_seq": ("duplicate",),
    "fake_certificate": ("malformed",),
    "bad_state": ("bad_proof",),
}
"""What the honest refuse a liar for. A lie that is not here cannot be told from bad luck, or from what it replays."""

TOLD_BY_LEADERS = ("bad_plan", "two_cuts")
"""Lies that only a leader can tell: told by whoever leads, since in ten rounds of five a given node leads none in one world of nine."""

CHANCY = ("wrong_sum",)
"""Lies that come to light when somebody looks: of three, each in two rounds of three, within three minutes."""

LYING_S = 60.0


def _crash(role: str, step: str) -> Make:
    enters, after_s = CRASHES[step]

    def make(nodes: int | None, seed: int) -> Story:
        when = f.When(enters=enters, role=role, number=3, after_s=after_s)
        return Story(
            name=f"crash-{role}-{step}",
            nodes=nodes or 5,
            seed=seed,
            seconds=30.0,
            schedule=(f.Kill(node=f.WHOEVER, when=when),),
            wanted=Wanted(rounds=5, detection_s=DETECTION_S, recovery_exchange_s=RECOVERY_S, recovery_exchanges=RECOVERY_EXCHANGES),
        )

    return make


def _liar(kind: str) -> Make:
    def make(nodes: int | None, seed: int) -> Story:
        count = nodes or (3 if kind in CHANCY else 5)
        liar, lie = 1, f.Lie(node=1, kind=kind, at_s=8.0)
        if kind in TOLD_BY_LEADERS:
            liar, lie = f.WHOEVER, f.Lie(node=f.WHOEVER, kind=kind, when=f.When(enters="ready", role="leader", number=2))
        schedule: tuple[f.AnyFault, ...] = (lie,)
        if kind == "bad_state":
            schedule += (f.Start(node=count - 1, at_s=20.0), *(f.Sever(node=count - 1, other=i, at_s=0.0, for_s=26.0) for i in (0, 2, 3)))
        return Story(
            name=f"liar-{kind}",
            nodes=count,
            seed=seed,
            seconds=LYING_S * (3 if kind in CHANCY else 1),
            schedule=schedule,
            parameters=2 * count * CHUNK_ELEMENTS,  # so that everybody reduces something, and can lie about it
            starts=tuple(range(count - 1)) if kind == "bad_state" else None,
            wanted=Wanted(rounds=4, refused=tuple((liar, reason) for reason in NAMED.get(kind, ()))),
        )

    return make


def _remembered(nodes: int | None, seed: int) -> Story:
    """A liar is caught. Then all who caught it lose power and come back, and somebody new joins: nobody works with it any more."""
    count = max(nodes or 5, 4)
    honest = [i for i in range(count) if i != 1]
    return Story(
        name="liar-remembered",
        nodes=count,
        seed=seed,
        seconds=190.0,
        schedule=(
            f.Lie(node=1, kind="wrong_sum", at_s=8.0),
            *(f.Kill(node=i, at_s=120.0 + 0.1 * i, back_s=5.0) for i in honest[:-1]),
            f.Start(node=honest[-1], at_s=135.0),
        ),
        parameters=2 * count * CHUNK_ELEMENTS,
        starts=tuple(range(count - 1)),
        wanted=Wanted(rounds=12, refused=((1, "wrong_sum"),), liars_out_from_s=120.0),
    )


def _plain(name: str, seconds: float, count: int, schedule: Callable[[int], tuple[f.AnyFault, ...]], **more: object) -> Make:
    """A story of `count` nodes (where nothing else is asked for) whose schedule may depend on how many they are."""

    def make(nodes: int | None, seed: int) -> Story:
        n = nodes or count
        return Story(name=name, nodes=n, seed=seed, seconds=seconds, schedule=schedule(n), **more)  # type: ignore[arg-type]

    return make


def _halves(n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(range(n // 2)), tuple(range(n // 2, n))


def _churn(name: str, count: int, minutes: int) -> Make:
    """Thirty percent of the nodes die every minute, each at a random moment, and come back a while later."""

    def make(nodes: int | None, seed: int) -> Story:
        n = nodes or count
        rng = random.Random(f"churn {seed}")
        schedule = tuple(
            f.Kill(node=node, at_s=60.0 * minute + round(rng.uniform(0, 60), 3), back_s=round(rng.uniform(5, 60), 3))
            for minute in range(minutes)
            for node in rng.sample(range(n), round(0.3 * n))
        )
        return Story(
            name=name,
            nodes=n,
            seed=seed,
            seconds=60.0 * minutes,
            schedule=schedule,
            round=SLOW_ROUNDS,
            wanted=Wanted(rounds=2 * minutes, goodput_of_bound=0.97, detection_s=DETECTION_S),
        )

    return make


def _revolving_door(nodes: int | None, seed: int) -> Story:
    """Every second somebody joins or leaves; a few stay."""
    n = max(nodes or 10, 5)
    rng = random.Random(f"door {seed}")
    schedule: list[f.AnyFault] = []
    inside = {i: i < 5 for i in range(n)}
    for second in range(5, 60):
        node = rng.randrange(3, n)
        schedule.append(f.Leave(node=node, at_s=float(second)) if inside[node] else f.Start(node=node, at_s=float(second)))
        inside[node] = not inside[node]
    return Story(
        name="revolving-door", nodes=n, seed=seed, seconds=70.0, schedule=tuple(schedule), starts=tuple(range(5)), wanted=Wanted(rounds=6)
    )


def _network(link: str) -> Make:
    return _plain(
        f"network-{link}",
        100.0,
        6,
        lambda n: (f.Kill(node=2, at_s=40.0, back_s=15.0),),
        link=link,
        round=RoundRules(seconds=10.0),
        wanted=Wanted(rounds=4),
    )


SCENARIOS: dict[str, Make] = {
    "calm": _plain("calm", 60.0, 4, lambda n: (), wanted=Wanted(rounds=9, goodput_of_bound=1.0)),
    "learning": _plain("learning", 60.0, 4, lambda n: (), marked=False, codec="bfloat16", wanted=Wanted(rounds=9, learns=True)),
    **{f"crash-{role}-{step}": _crash(role, step) for role in ("member", "leader") for step in CRASHES},
    "leader-lost-thrice": _plain(
        "leader-lost-thrice",
        50.0,
        7,
        lambda n: tuple(f.Kill(node=f.WHOEVER, when=f.When(enters="scatter", role="leader", number=i, after_s=0.02)) for i in (2, 3, 4)),
        wanted=Wanted(rounds=6, detection_s=DETECTION_S, recovery_exchange_s=RECOVERY_S),
    ),
    "two-reducers-dead": _plain(
        "two-reducers-dead",
        30.0,
        7,
        lambda n: tuple(
            f.Kill(node=f.WHOEVER, when=f.When(enters="reduce", role="member", number=3, after_s=after)) for after in (0.0, 0.015)
        ),
        wanted=Wanted(rounds=4, detection_s=DETECTION_S, recovery_exchange_s=RECOVERY_S),
    ),
    "cascade": _plain(
        "cascade",
        60.0,
        8,
        lambda n: (
            f.Kill(node=f.WHOEVER, when=f.When(enters="scatter", role="member", number=2, after_s=0.01)),
            f.Kill(node=f.WHOEVER, when=f.When(enters="reduce", role="member", number=2, after_s=0.01)),
            f.Kill(node=f.WHOEVER, when=f.When(enters="vote", role="leader", number=3)),
            f.Kill(node=f.WHOEVER, when=f.When(enters="ready", role="leader", number=4)),
            f.Kill(node=f.WHOEVER, when=f.When(enters="reduce", role="leader", number=5, after_s=0.02)),
        ),
        wanted=Wanted(rounds=7, detection_s=DETECTION_S),
    ),
    "partition": _plain("partition", 90.0, 6, lambda n: (f.Partition(groups=_halves(n), at_s=17.0, for_s=40.0),), wanted=Wanted(rounds=10)),
    "partition-thrice": _plain(
        "partition-thrice",
        120.0,
        6,
        lambda n: tuple(f.Partition(groups=_halves(n), at_s=at, for_s=18.0) for at in (12.0, 45.0, 80.0)),
        wanted=Wanted(rounds=9),
    ),
    "partition-lone": _plain(
        "partition-lone", 80.0, 5, lambda n: (f.Partition(groups=((0,),), at_s=17.0, for_s=35.0),), wanted=Wanted(rounds=9)
    ),
    "one-path-cut": _plain("one-path-cut", 80.0, 5, lambda n: (f.Sever(node=0, other=1, at_s=12.0, for_s=40.0),), wanted=Wanted(rounds=5)),
    "latency-500ms": _plain(
        "latency-500ms",
        140.0,
        5,
        lambda n: (f.Kill(node=1, at_s=50.0, back_s=20.0),),
        link="farthest",
        round=SLOW_ROUNDS,
        wanted=Wanted(rounds=4),
    ),
    "restart": _plain(
        "restart",
        60.0,
        4,
        lambda n: tuple(f.Kill(node=i, at_s=20.0 + 0.1 * i, back_s=5.0) for i in range(n)),
        wanted=Wanted(rounds=6),
    ),
    "power-cut-in-vote": _plain(
        "power-cut-in-vote",
        60.0,
        4,
        # All have voted and nobody has certified, when all lose power; they come back one after the other, into the middle of the round.
        lambda n: tuple(f.Kill(node=i, when=f.When(enters="vote", node=i, number=3, after_s=0.002), back_s=3.0 + i) for i in range(n)),
        wanted=Wanted(rounds=6),
    ),
    "certified-while-away": _plain(
        "certified-while-away",
        90.0,
        4,
        # A member is cut off when its slices are out: the others certify them. It trains on alone, offers that work and more, is started again,
        # and hears of the certificate only then.
        lambda n: (
            f.Partition(groups=((1,),), when=f.When(enters="reduce", node=1, number=3, after_s=0.03), for_s=45.0),
            f.Kill(node=1, at_s=45.0, back_s=3.0),
        ),
        wanted=Wanted(rounds=10, drops_nothing=True),
    ),
    "restart-one": _plain("restart-one", 60.0, 4, lambda n: (f.Kill(node=1, at_s=21.0, back_s=8.0),), wanted=Wanted(rounds=8)),
    "joining": _plain(
        "joining",
        60.0,
        6,
        lambda n: tuple(f.Start(node=i, at_s=4.0 + 7.3 * i) for i in range(3, n)),
        starts=(0, 1, 2),
        wanted=Wanted(rounds=8),
    ),
    "lone-nodes-meet": _plain("lone-nodes-meet", 40.0, 2, lambda n: (f.Start(node=1, at_s=17.0),), starts=(0,), wanted=Wanted(rounds=2)),
    "churn": _churn("churn", 16, 8),
    "revolving-door": _revolving_door,
    "corrupt": _plain(
        "corrupt",
        60.0,
        5,
        lambda n: (f.Corrupt(node=1, share=0.3, at_s=8.0, for_s=30.0),),
        wanted=Wanted(rounds=4, refused=((1, "unsigned"),)),
    ),
    "lossy": _plain(
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
    "two-leaders": _plain(
        "two-leaders",
        50.0,
        6,
        # The leader hears everybody late and is heard late: half of the swarm passes it over while it still plans.
        lambda n: (f.Reorder(node=f.WHOEVER, share=0.0, late_s=3.0, for_s=12.0, when=f.When(enters="ready", role="leader", number=2)),),
        wanted=Wanted(rounds=4),
    ),
    "asleep": _plain("asleep", 660.0, 4, lambda n: (f.Pause(node=1, at_s=22.0, for_s=600.0),), wanted=Wanted(rounds=80)),
    "clock-skew": _plain(
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
    "straggler": _plain(
        "straggler",
        60.0,
        5,
        lambda n: (f.Straggle(node=1, speed=0.05, bits_per_second=2e5, at_s=8.0, for_s=30.0),),
        wanted=Wanted(rounds=5),
    ),
    "too-slow": _plain(
        "too-slow",
        100.0,
        6,
        lambda n: (f.Straggle(node=1, speed=1.0, bits_per_second=2e5, at_s=32.0, for_s=40.0),),
        round=RoundRules(seconds=5.0, ready_s=1.0, scatter_s=20.0, gather_s=20.0, vote_s=2.0),
        link="narrow",
        parameters=60 * CHUNK_ELEMENTS,
        wanted=Wanted(rounds=10, drops_nothing=True),
    ),
    "trainer-crash": _plain(
        "trainer-crash",
        50.0,
        4,
        lambda n: (f.CrashTrainer(node=1, at_s=8.0), f.CrashTrainer(node=2, when=f.When(enters="offer", node=2, number=3, after_s=0.1))),
        wanted=Wanted(rounds=7),
    ),
    "diverged": _plain("diverged", 50.0, 4, lambda n: (f.Diverge(node=1, at_s=8.0),), wanted=Wanted(rounds=7)),
    "disk-full": _plain("disk-full", 70.0, 4, lambda n: (f.FillDisk(node=1, at_s=8.0, for_s=25.0),), wanted=Wanted(rounds=6)),
    **{f"liar-{kind}": _liar(kind) for kind in LIES},
    "liar-remembered": _remembered,
    **{f"network-{quality}": _network(quality) for quality in QUALITIES},
    "network-world": _network("world"),
}

IN_ROWS: dict[str, Make] = {
    **in_rows(SCENARIOS),
    **between_rows(
        Wanted(rounds=5, detection_s=DETECTION_S, recovery_exchanges=RECOVERY_EXCHANGES), Wanted(rounds=5, detection_s=DETECTION_S)
    ),
}
"""Of several rows: everything above told again, and what can happen between rows."""

CROWDS: dict[str, Make] = {
    "many": _plain(
        "many",
        10.0,  # and then until everybody holds the first certificate and its anchor
        1000,
        lambda n: (),
        round=RoundRules(seconds=20.0, ready_s=5.0),
        parameters=256,
        max_group=64,
        patience_s=120.0,
        wanted=Wanted(rounds=1),
    ),
    "churn-long": _churn("churn-long", 24, 30),
    "crowd": _plain(
        "crowd",
        45.0,
        100,
        lambda n: (),
        round=RoundRules(seconds=30.0),
        link="world",
        max_group=64,
        patience_s=120.0,
        wanted=Wanted(rounds=1),
    ),
}


def scenario(name: str, nodes: int | None, seed: int) -> Story:
    """Raises `UserError("SCENARIO")` with the known names."""
    make = SCENARIOS.get(name) or IN_ROWS.get(name) or CROWDS.get(name)
    if make is None:
        known = ", ".join([*SCENARIOS, *IN_ROWS, *CROWDS, "membership"])
        raise UserError("SCENARIO", f"There is no scenario {name!r}.", why=f"there are: {known}", fix="or: all", exit_code=2)
    return make(nodes, seed)
