"""Named stories of runs of rules 4: voters die, leave and return, and branches meet again.

A voter alone of several waits 30 graces, two or more wait one. A vote is lost after max(8, 2 x
voters) plans without an offer. The stories have short rounds and a short grace, so the times are
those of the rule in proportion.
"""

from __future__ import annotations

from simulator.faults import fault as f
from simulator.scenarios.story import Make, VotesWanted, Wanted, plain

GRACE_S = 30.0


def trust_story(
    name: str,
    seconds: float,
    count: int,
    schedule: tuple[f.AnyFault, ...],
    wanted: Wanted,
    **more: object,
) -> Make:
    """Make a story of rules 4 with the short grace."""
    return plain(
        name,
        seconds,
        count,
        lambda n: schedule,
        rules=4,
        grace_s=GRACE_S,
        wanted=wanted,
        **more,
    )


def halves(count: int) -> Make:
    """Equal halves: both certify after the grace, and one merge brings them together."""
    half = count // 2
    return trust_story(
        f"trust-even-split-{count}",
        340.0,
        count,
        (
            f.Partition(
                groups=(tuple(range(half)), tuple(range(half, count))), at_s=17.0, for_s=200.0
            ),
        ),
        Wanted(
            rounds=40,
            votes=VotesWanted(voters=count, degraded=(1, 2 * max(8, 2 * count)), merges=1),
        ),
    )


BRANCHES: dict[str, Make] = {
    # Either of two friends may leave: the other one trains alone, and nothing is lost.
    "trust-two-nodes": trust_story(
        "trust-two-nodes",
        150.0,
        2,
        (f.LeaveFault(node=1, at_s=31.0), f.Start(node=1, at_s=70.0)),
        Wanted(rounds=16, votes=VotesWanted(voters=2)),
    ),
    # The only voter dies. Its followers certify nothing without it, and go on when it is back.
    "trust-founder-dies-early": trust_story(
        "trust-founder-dies-early",
        200.0,
        5,
        (f.Kill(node=0, at_s=22.0, back_s=100.0),),
        Wanted(rounds=12, votes=VotesWanted(voters=1)),
        founders=1,
    ),
    # One voter of three is left, with three followers: it waits 30 graces, here 90 s.
    "trust-one-voter-left": plain(
        "trust-one-voter-left",
        260.0,
        6,
        lambda n: (f.Kill(node=1, at_s=22.0), f.Kill(node=2, at_s=22.0)),
        rules=4,
        grace_s=3.0,
        founders=3,
        settle_timeout_s=130.0,
        wanted=Wanted(rounds=24, votes=VotesWanted(voters=1, degraded=(8, 8))),
    ),
    "trust-four-two-die": trust_story(
        "trust-four-two-die",
        160.0,
        4,
        (f.Kill(node=2, at_s=22.0), f.Kill(node=3, at_s=22.0)),
        Wanted(rounds=20, votes=VotesWanted(voters=2, degraded=(8, 8))),
        settle_timeout_s=60.0,
    ),
    "trust-ten-seven-die": trust_story(
        "trust-ten-seven-die",
        240.0,
        10,
        tuple(f.Kill(node=i, at_s=22.0) for i in range(3, 10)),
        Wanted(rounds=34, votes=VotesWanted(voters=3, degraded=(20, 20))),
        settle_timeout_s=60.0,
    ),
    # Seven of ten come back together: they certify in full, and absorb the three's branch.
    "trust-seven-return": trust_story(
        "trust-seven-return",
        300.0,
        10,
        tuple(f.Kill(node=i, at_s=22.0, back_s=160.0) for i in range(3, 10)),
        Wanted(rounds=40, votes=VotesWanted(voters=10, degraded=(1, 20), merges=1)),
        settle_timeout_s=90.0,
    ),
    "trust-even-split-4": halves(4),
    "trust-even-split-6": halves(6),
    # The four never pause, and absorb the two.
    "trust-split-4-2": trust_story(
        "trust-split-4-2",
        280.0,
        6,
        (f.Partition(groups=((0, 1), (2, 3, 4, 5)), at_s=17.0, for_s=150.0),),
        Wanted(
            rounds=40,
            longest_round_s=25.0,
            votes=VotesWanted(voters=6, degraded=(1, 12), merges=1),
        ),
    ),
    # Two leaders certify siblings, and a merge follows.
    "trust-siblings": trust_story(
        "trust-siblings",
        50.0,
        6,
        (
            f.Reorder(
                node=f.NODE_AT_STEP,
                share=0.0,
                late_s=3.0,
                for_s=12.0,
                when=f.FaultTrigger(enters="ready", role="leader", number=2),
            ),
        ),
        Wanted(rounds=4, votes=VotesWanted(voters=6)),
    ),
}
"""Every story must keep the invariants, too."""
