"""The vote for an outcome of a plan, of the kind that the run's rules have."""

from __future__ import annotations

import msgspec

from protocol.digest import Digest
from protocol.messages.round import TrustVote, Vote
from protocol.planning.plan import OpenPlan


class TrustFields(msgspec.Struct, frozen=True, kw_only=True):
    """What a vote of rules 4 names besides the outcome."""

    # The digest of the parent's membership record.
    record: Digest
    step_norm: float = 0.0


def vote_for(
    plan: OpenPlan,
    parents: tuple[Digest, ...],
    inclusion: Digest,
    result: Digest,
    state: Digest,
    trust: TrustFields | None,
) -> Vote:
    """Return the vote of a member of a plan.

    Args:
        plan: the plan.
        parents: the parents of the certificate, in order.
        inclusion: the digest of the signed inclusion.
        result: the root over the results of all slices.
        state: the digest of the state after the outer step.
        trust: for runs of rules 4; None in runs of rules 2 and 3.
    """
    number, view = plan.plan.number, plan.plan.view
    if trust is None:
        return Vote(
            parents=parents,
            number=number,
            view=view,
            plan=plan.digest,
            inclusion=inclusion,
            result=result,
            state=state,
        )
    return TrustVote(
        parents=parents,
        number=number,
        view=view,
        plan=plan.digest,
        inclusion=inclusion,
        result=result,
        state=state,
        record=trust.record,
        step_norm=trust.step_norm,
    )
