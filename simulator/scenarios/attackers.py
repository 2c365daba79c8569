"""Named stories of attackers in runs of rules 4: forged certificates, old keys and bad work."""

from __future__ import annotations

from simulator.faults import fault as f
from simulator.faults.work_lies import WORK_LIES
from simulator.scenarios.branches import GRACE_S, trust_story
from simulator.scenarios.story import QUICK, Make, VotesWanted, Wanted

# No attack costs the others a view: a round of 5 s, and the exchange.
USUAL_ROUND_S = QUICK.seconds + 1.5
LEAVERS = range(6)


def _lie(kind: str, *nodes: int, at_s: float = 8.0) -> tuple[f.AnyFault, ...]:
    return tuple(f.ByzantineBehavior(node=node, kind=kind, at_s=at_s) for node in nodes)


ATTACKERS: dict[str, Make] = {
    # 2, 3 and 10 fresh keys certify after each certificate, by the run's record and by their own.
    "trust-forged-by-strangers": trust_story(
        "trust-forged-by-strangers",
        70.0,
        5,
        _lie("strangers_certify", 4),
        Wanted(
            rounds=11,
            longest_round_s=USUAL_ROUND_S,
            refused=((4, "bad_certificate"),),
            votes=VotesWanted(voters=5, branches=1, merges=0),
        ),
    ),
    "trust-flood": trust_story(
        "trust-flood",
        40.0,
        5,
        _lie("flood_certificates", 4),
        Wanted(
            rounds=6,
            longest_round_s=USUAL_ROUND_S,
            refused=((4, "busy"),),
            votes=VotesWanted(voters=5, branches=1, merges=0),
        ),
    ),
    # Two of twelve voters certify nine rounds of their own after each certificate.
    "trust-two-of-many": trust_story(
        "trust-two-of-many",
        80.0,
        12,
        _lie("private_branch", 4, 9),
        Wanted(
            rounds=12,
            longest_round_s=USUAL_ROUND_S,
            votes=VotesWanted(voters=12, branches=1, merges=0),
        ),
    ),
    # The ten are silent for longer than the grace. Nobody follows the two on waking.
    "trust-two-of-many-graced": trust_story(
        "trust-two-of-many-graced",
        150.0,
        12,
        (
            *_lie("private_branch", 4, 9),
            *(
                f.Pause(node=i, at_s=32.0, for_s=GRACE_S + 20.0)
                for i in range(12)
                if i not in (4, 9)
            ),
        ),
        Wanted(
            rounds=14,
            longest_round_s=GRACE_S + 50.0,
            votes=VotesWanted(voters=12, branches=1, merges=0),
        ),
    ),
    # Six of ten leave for good. Later their keys sign another history of the rounds of before.
    "trust-old-keys": trust_story(
        "trust-old-keys",
        330.0,
        10,
        (
            *(f.Kill(node=i, at_s=42.0) for i in LEAVERS),
            *_lie("old_keys", *LEAVERS, at_s=229.0),
            f.Start(node=0, at_s=230.0),
        ),
        Wanted(
            rounds=40,
            votes=VotesWanted(lose=(1, 2, 3, 4, 5), degraded=(1, 20), branches=1, merges=0),
        ),
        settle_timeout_s=60.0,
    ),
    # One of two is not more than half: the owner decides. One of six decides nothing, either.
    "trust-against-in-two": trust_story(
        "trust-against-in-two",
        70.0,
        2,
        _lie("slander", 1),
        Wanted(rounds=11, longest_round_s=USUAL_ROUND_S, votes=VotesWanted(voters=2)),
    ),
    "trust-slander": trust_story(
        "trust-slander",
        70.0,
        6,
        _lie("slander", 1),
        Wanted(rounds=11, longest_round_s=USUAL_ROUND_S, votes=VotesWanted(voters=6)),
    ),
    # A voter works four times as fast as the others, and then flips the sign of its work.
    "trust-sleeper": trust_story(
        "trust-sleeper",
        420.0,
        6,
        (f.Poison(node=0, factor=-1.0, at_s=60.0),),
        Wanted(rounds=60, longest_round_s=USUAL_ROUND_S, votes=VotesWanted(lose=(0,), voters=5)),
        marked=False,
        paces=(4.0,),
        parameters=4096,
        samples_per_second=60.0,
        evaluation_speed=60.0,
    ),
    **{
        f"trust-{kind.replace('_', '-')}": trust_story(
            f"trust-{kind.replace('_', '-')}",
            300.0,
            4,
            _lie(kind, 3),
            Wanted(
                rounds=40,
                longest_round_s=USUAL_ROUND_S,
                learns=True,
                # Half of the steps are work.
                votes=VotesWanted(lose=() if kind == "half_of_steps" else (3,)),
            ),
            marked=False,
            parameters=4096,
            samples_per_second=200.0,
            evaluation_speed=60.0,
        )
        for kind in ("overclaimed_zeros", "noise", "negated", *WORK_LIES)
    },
}
"""Every story must keep the invariants, too."""
