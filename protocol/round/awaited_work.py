"""Whose contributions a round waits for, and for how long.

A round waits for its members until the deadline of the scatter. Newcomers have free keys: with a
key a round, a stranger that offers and falls silent would hold every round up to that deadline.
Once all members' work is in, the leader waits for newcomers only as long as they need for theirs.
"""

from __future__ import annotations

from protocol.membership.role import Role, role_of
from protocol.planning.plan import OpenPlan, sizes_of
from protocol.planning.round_length import GUESSED_BPS
from protocol.round.state import RoundState
from protocol.round.timeouts import PREDICTION_MARGIN


def offering(plan: OpenPlan) -> frozenset[int]:
    """The members of a plan with anything to offer."""
    return frozenset(i for i, offer in enumerate(plan.offers) if offer.samples)


def awaited(state: RoundState, plan: OpenPlan) -> frozenset[int]:
    """The members of a plan with anything to offer, without newcomers (rules 4).

    Where only newcomers offer, they are awaited as members are. A peer whose invitation this very
    plan accepts counts as a newcomer here.
    """
    if state.record is None:
        return offering(plan)
    manifest = state.context.manifest
    members = {
        i
        for i in offering(plan)
        if role_of(state.record, manifest, plan.members[i]) is not Role.NEWCOMER
    }
    return frozenset(members) or offering(plan)


def newcomers_s(state: RoundState, plan: OpenPlan) -> float:
    """How long a leader waits for newcomers' work once it has all members' work.

    It is the time for an answer, and twice what the bytes take on links of 20 Mbit/s: those of one
    newcomer to all reducers, or those of all newcomers to one reducer, whichever is longer. Nobody
    has measured a newcomer's link, and its own word would set the time.
    """
    context = state.context
    size_bytes = sizes_of(context.manifest, context.chunks, len(plan.offers)).offer
    newcomers = len(offering(plan) - awaited(state, plan))
    reducers = sum(plan.layout.sums(i) for i in range(len(plan.members)))
    vectors = max(1.0, newcomers / max(1, reducers))
    sent_s = vectors * size_bytes * 8 / GUESSED_BPS
    return context.manifest.round.ready_s + PREDICTION_MARGIN * sent_s
