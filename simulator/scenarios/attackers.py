"""Named stories of attackers in runs of rules 4: forged certificates, old keys and bad work."""

from __future__ import annotations

from protocol.membership.finality import FINAL_S, HELD_EVERY_S
from simulator.faults import fault as f
from simulator.faults.work_lies import WORK_LIES
from simulator.scenarios.branches import GRACE_S, trust_story
from simulator.scenarios.story import QUICK, Make, VotesWanted, Wanted

# No attack costs the others a view: a round of 5 s, and the exchange.
USUAL_ROUND_S = QUICK.seconds + 1.5
LEAVERS = range(6)
STAYERS = range(6, 10)


def _lie(
    kind: str, *nodes: int, at_s: float = 8.0, in_turn: bool = False
) -> tuple[f.AnyFault, ...]:
    return tuple(
        f.ByzantineBehavior(node=node, kind=kind, at_s=at_s, in_turn=in_turn) for node in nodes
    )


def _restarted_after(node: int, hours_s: float, at_s: float) -> tuple[f.AnyFault, ...]:
    """Stop a node, and start it again as if so much more time had passed."""
    return (
        f.SkewClock(node=node, by_s=hours_s, at_s=at_s),
        f.Kill(node=node, at_s=at_s, back_s=1.0),
    )


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
    # Two of twelve certify 300 rounds of a million samples at once, to be merged with that weight.
    "trust-private-branch-mints": trust_story(
        "trust-private-branch-mints",
        60.0,
        12,
        _lie("minted_branch", 4, 9),
        Wanted(
            rounds=9,
            longest_round_s=USUAL_ROUND_S,
            votes=VotesWanted(voters=12, branches=1, merges=0),
        ),
    ),
    # The two certify on their own side of a partition, with claims of a million samples. The ten
    # absorb that branch, and lose nothing of their own to its weight.
    "trust-private-branch-merges": trust_story(
        "trust-private-branch-merges",
        200.0,
        12,
        (
            f.Partition(groups=(tuple(range(10)), (10, 11)), at_s=17.0, for_s=100.0),
            *_lie("overclaim", 10, 11, at_s=20.0),
        ),
        Wanted(
            rounds=34,
            longest_round_s=25.0,
            votes=VotesWanted(voters=12, degraded=(1, 30), merges=1),
        ),
    ),
    # Five of twelve are on their own, with work a million times as long as honest work.
    "trust-merge-poison": trust_story(
        "trust-merge-poison",
        245.0,
        12,
        (
            f.Partition(groups=(tuple(range(7)), tuple(range(7, 12))), at_s=27.0, for_s=90.0),
            *(f.Poison(node=node, factor=1e6, at_s=30.0) for node in range(7, 12)),
            *(f.Poison(node=node, factor=1.0, at_s=116.0) for node in range(7, 12)),
        ),
        Wanted(
            rounds=30,
            longest_round_s=25.0,
            learns=True,
            votes=VotesWanted(voters=12, degraded=(1, 30), merges=1),
        ),
        marked=False,
    ),
    # Eight of 32 voters lead one after the other, and plan with as few others as make a quorum.
    "trust-censoring-leaders": trust_story(
        "trust-censoring-leaders",
        190.0,
        32,
        _lie("censor_voters", *range(8), in_turn=True),
        Wanted(rounds=30, longest_round_s=USUAL_ROUND_S + 1.0, votes=VotesWanted(voters=32)),
    ),
    # Four of twelve spread each certificate with another quorum of its votes.
    "trust-copies-differ": trust_story(
        "trust-copies-differ",
        540.0,
        12,
        _lie("different_copies", 1, 4, 7, 10),
        Wanted(
            rounds=100,
            longest_round_s=USUAL_ROUND_S,
            votes=VotesWanted(voters=12, branches=1, merges=0),
        ),
    ),
    # All that a joiner hears at first are two of twelve voters, on a branch of their own. It leaves
    # that branch once it hears the others.
    "trust-joiner-eclipsed": trust_story(
        "trust-joiner-eclipsed",
        230.0,
        13,
        (
            f.Partition(groups=(tuple(range(10)), (10, 11, 12)), at_s=17.0, for_s=130.0),
            f.Start(node=12, at_s=40.0),
        ),
        Wanted(rounds=40, votes=VotesWanted(voters=12, degraded=(1, 40), merges=1)),
        starts=tuple(range(12)),
        founders=12,
    ),
    # Newcomers own no slice, whatever they would do with one.
    **{
        f"trust-newcomer-{name}": trust_story(
            f"trust-newcomer-{name}",
            60.0,
            7,
            _lie(kind, 4, 5, 6, at_s=0.0),
            Wanted(
                rounds=8, longest_round_s=USUAL_ROUND_S + QUICK.ready_s, votes=VotesWanted(voters=4)
            ),
            founders=4,
        )
        for name, kind in (
            ("sums-wrong", "wrong_sum"),
            ("sums-nothing", "false_hold_report"),
            ("falls-silent", "silent_after_offer"),
        )
    },
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
    # The same from the last certificate that they signed, a day later: more voters stand there. The
    # four have restarted since, and stay where they are.
    "trust-keys-since-departure": trust_story(
        "trust-keys-since-departure",
        330.0,
        10,
        (
            *(f.Kill(node=i, at_s=42.0) for i in LEAVERS),
            *(
                fault
                for i in STAYERS
                for fault in (
                    *_restarted_after(i, HELD_EVERY_S, at_s=120.0 + i),
                    *_restarted_after(i, FINAL_S, at_s=200.0),
                )
            ),
            *_lie("keys_since_departure", *LEAVERS, at_s=229.0),
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
