"""Named stories of nodes that are cut off, restarted, or not yet there."""

from __future__ import annotations

from simulator.faults import fault as f
from simulator.scenarios.story import SLOW_ROUNDS, Make, Wanted, plain


def _halves(n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(range(n // 2)), tuple(range(n // 2, n))


AWAY: dict[str, Make] = {
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
        # The work since its last full state is lost, because its offer was sent.
        lambda n: (
            f.Partition(
                groups=((1,),),
                when=f.FaultTrigger(enters="reduce", node=1, number=3, after_s=0.03),
                for_s=45.0,
            ),
            f.Kill(node=1, at_s=45.0, back_s=3.0),
        ),
        wanted=Wanted(rounds=10),
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
}
