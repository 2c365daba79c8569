"""Named stories of voters without an attacker (rules 4): who votes, and what departures cost.

`facts/trust-scenarios.md` of the project states them with hours and graces of two minutes. Here
rounds take 5 s and the grace 30 s, except where the story names other times.
"""

from __future__ import annotations

from protocol.run.manifest import RoundRules
from simulator.faults import fault as f
from simulator.scenarios.branches import GRACE_S, halves, trust_story
from simulator.scenarios.crowds import churn
from simulator.scenarios.story import DETECTION_S, Make, VotesWanted, Wanted, plain

# Each node alone, long enough for offers of many rounds, and shorter than a lone voter's grace.
ALONE_S = 300.0
# A vote is lost by plans without an offer: rounds of one length make them a time.
LONG_ROUNDS = RoundRules(seconds=20.0, min_seconds=20.0)
# A round, and what a leader that is silent or a sibling costs.
ROUND_AND_VIEWS_S = 12.0

VOTERS: dict[str, Make] = {
    # All stop. Two of ten return and certify after the grace, and the eight return later.
    "trust-two-next-day": trust_story(
        "trust-two-next-day",
        300.0,
        10,
        tuple(f.Kill(node=i, at_s=22.0, back_s=50.0 if i < 2 else 190.0) for i in range(10)),
        Wanted(rounds=20, votes=VotesWanted(voters=10, degraded=(1, 20), merges=1)),
        settle_timeout_s=GRACE_S + 40.0,
    ),
    # The seven return to a branch of the three whose model has a lower loss, and follow it at once.
    "trust-seven-follow": trust_story(
        "trust-seven-follow",
        260.0,
        10,
        tuple(f.Kill(node=i, at_s=22.0, back_s=140.0) for i in range(3, 10)),
        Wanted(rounds=34, learns=True, votes=VotesWanted(voters=10, degraded=(1, 20), merges=0)),
        marked=False,
        # A trial scores 1,024 samples, in the rounds that still learn.
        evaluation_speed=60.0,
        settle_timeout_s=90.0,
    ),
    # The three flip the sign of their work. The seven measure it and certify in full.
    "trust-seven-poisoned": trust_story(
        "trust-seven-poisoned",
        260.0,
        10,
        (
            *(f.Kill(node=i, at_s=22.0, back_s=140.0) for i in range(3, 10)),
            *(f.Poison(node=i, factor=-1.0, at_s=30.0) for i in range(3)),
        ),
        Wanted(rounds=34, votes=VotesWanted(voters=10, degraded=(1, 20), merges=1)),
        marked=False,
        evaluation_speed=60.0,
        settle_timeout_s=90.0,
    ),
    # Six of eight die, and all who kept the results of some rounds are among them. Then the power
    # of the other two fails: they wrote their full state when the keepers were gone.
    "trust-keepers-die": trust_story(
        "trust-keepers-die",
        140.0,
        8,
        (
            *(f.Kill(node=i, at_s=22.0) for i in range(2, 8)),
            f.PowerCut(at_s=90.0, back_s=1.0, spread_s=0.0),
        ),
        Wanted(rounds=14, votes=VotesWanted(degraded=(8, 16))),
        settle_timeout_s=45.0,
    ),
    "trust-even-split-8": halves(8),
    # Both halves wait for the grace, and a node of each restarts in it, at other times.
    "trust-split-clocks": trust_story(
        "trust-split-clocks",
        340.0,
        6,
        (
            f.Partition(groups=((0, 1, 2), (3, 4, 5)), at_s=17.0, for_s=200.0),
            f.Kill(node=1, at_s=30.0, back_s=1.0),
            f.Kill(node=4, at_s=45.0, back_s=1.0),
        ),
        Wanted(
            rounds=40,
            votes=VotesWanted(voters=6, degraded=(1, 48), merges=1, branches=2),
        ),
    ),
    # Thirty percent of the voters die every minute. A quorum is always there, so nobody waits.
    "trust-churn": churn(
        "trust-churn",
        16,
        8,
        Wanted(
            rounds=16,
            goodput_of_bound=0.97,
            detection_s=DETECTION_S,
            votes=VotesWanted(voters=16, tips=None),
        ),
        rules=4,
        round_rules=LONG_ROUNDS,
    ),
    "trust-churn-three": churn(
        "trust-churn-three",
        3,
        8,
        Wanted(rounds=14, longest_round_s=80.0, votes=VotesWanted(voters=3, tips=None)),
        rules=4,
        round_rules=LONG_ROUNDS,
    ),
    # Of a founder and friends of the owner, all vote after a few rounds, whatever their pace.
    "trust-slow-founder": plain(
        "trust-slow-founder",
        120.0,
        3,
        lambda n: (),
        rules=4,
        founders=1,
        allowlist=True,
        paces=(1.0, 50.0, 50.0),
        wanted=Wanted(rounds=18, votes=VotesWanted(voters=3, keep=(0,))),
    ),
    "trust-fast-founder": plain(
        "trust-fast-founder",
        150.0,
        5,
        lambda n: (f.Kill(node=0, at_s=80.0),),
        rules=4,
        founders=1,
        allowlist=True,
        paces=(50.0,),
        wanted=Wanted(rounds=20, longest_round_s=30.0, votes=VotesWanted(voters=4)),
    ),
    # Everybody trains alone, and meets the others with offers of many rounds.
    "trust-all-long-offers": plain(
        "trust-all-long-offers",
        430.0,
        4,
        lambda n: (f.Partition(groups=tuple((i,) for i in range(n)), at_s=62.0, for_s=ALONE_S),),
        rules=4,
        marked=False,
        wanted=Wanted(
            rounds=20,
            longest_round_s=ALONE_S + 2 * ROUND_AND_VIEWS_S,
            learns=True,
            votes=VotesWanted(voters=4),
        ),
    ),
    # Two leaders certify siblings in every third round, and a merge follows each pair.
    "trust-siblings-often": trust_story(
        "trust-siblings-often",
        440.0,
        6,
        tuple(
            f.Reorder(
                node=f.NODE_AT_STEP,
                share=0.0,
                late_s=3.0,
                for_s=12.0,
                when=f.FaultTrigger(enters="ready", role="leader", number=number),
            )
            for number in range(2, 62, 3)
        ),
        Wanted(rounds=60, votes=VotesWanted(voters=6, branches=2)),
    ),
}
"""Every story must keep the invariants, too."""
