"""What the membership record makes of a plan's claims: weights, and the bounds of its sums."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.averaging.plan_terms import plan_terms
from protocol.identity import PeerId
from protocol.membership.record import MembershipRecord
from protocol.membership.role import Role
from protocol.messages.sum_terms import SumTerms
from protocol.run.manifest import Manifest


def terms_by_record(
    record: MembershipRecord,
    peers: Sequence[PeerId],
    samples: Sequence[int],
    roles: Sequence[Role],
    round_s: float,
    manifest: Manifest,
) -> SumTerms:
    """Return the terms of a plan.

    Args:
        record: the record of the plan's (preferred) parent.
        peers: the members of the plan.
        samples: what each of them offers.
        roles: the role of each.
        round_s: the recorded seconds of the round that the plan ends.
        manifest: the run's manifest.
    """
    return plan_terms(
        samples,
        [i for i, role in enumerate(roles) if role is Role.VOTER],
        [i for i, role in enumerate(roles) if role is Role.NEWCOMER],
        [
            [
                (each.weights[peer], each.round_s)
                for each in record.recent
                if each.weights.get(peer, 0)
            ]
            for peer in peers
        ],
        [each.step_norm for each in record.recent],
        round_s,
        manifest.admits,
    )
