"""Makes the terms of a plan's sums from what is remembered of earlier certificates."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.averaging.step_norm import usual_norm
from protocol.averaging.weights import claimed_weight, median_samples, usual_weight
from protocol.errors import PeerFault
from protocol.messages.sum_terms import SumTerms


def plan_terms(
    samples: Sequence[int],
    voters: Sequence[int],
    newcomers: Sequence[int],
    own: Sequence[Sequence[tuple[int, float]]],
    norms: Sequence[float],
    round_s: float,
    policy: str,
) -> SumTerms:
    """Return the terms of a plan.

    Args:
        samples: what each member of the plan offers.
        voters: which of them vote, by index.
        newcomers: which of them are newcomers, by index.
        own: for each member, (weight, recorded seconds of the round) of each recent certificate
            that lists it, oldest first.
        norms: the step norms per second of the recent certificates, oldest first; 0.0 for merges.
        round_s: the recorded seconds of the round that the plan ends.
        policy: the run's admission policy.
    """
    median = median_samples(samples, voters, newcomers)
    return SumTerms(
        weights=tuple(
            claimed_weight(claim, median, usual_weight(earlier, round_s), policy)
            for claim, earlier in zip(samples, own, strict=True)
        ),
        voters=tuple(sorted(voters)),
        newcomers=tuple(sorted(newcomers)),
        median=median,
        norm=usual_norm(norms) * round_s,
    )


def check_terms(terms: SumTerms, samples: Sequence[int]) -> None:
    """Check that terms can be those of a plan with these offers.

    Guarantees that sums by them do not fail. Does not guarantee that they follow from the record.

    Raises:
        PeerFault: "bad_plan".
    """
    if len(terms.weights) != len(samples) or any(
        weight > claim or bool(weight) != bool(claim)
        for weight, claim in zip(terms.weights, samples, strict=False)
    ):
        raise PeerFault("bad_plan", "a plan whose weights do not fit its offers")
    for listed in (terms.voters, terms.newcomers):
        if list(listed) != sorted(set(listed)) or any(i >= len(samples) for i in listed):
            raise PeerFault("bad_plan", "a plan whose roles do not fit its members")
