"""Whether enough voters are here to certify, and how long this node waits for more (rules 4).

Rules on patience: `protocol/membership/patience.py`. Below rules 4 a plan's majority certifies, and
every function here finds that nothing is missing.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from msgspec.structs import replace

from protocol.identity import PeerId
from protocol.membership.patience import Patience, grace_of
from protocol.membership.patience import is_full as enough
from protocol.membership.quorum import quorum_of
from protocol.messages.round import TrustPlan
from protocol.planning.plan import OpenPlan
from protocol.round.state import RoundState


def patience_of(state: RoundState) -> Patience | None:
    """How patient this node is after its tip; None below rules 4."""
    record = state.record
    if record is None:
        return None
    grace_s = grace_of(state.context.manifest.trust.quorum_grace_s, state.round_s)
    return Patience(since=state.full_since, grace_s=grace_s, voters=len(record.counted))


def certifies(state: RoundState, plan: OpenPlan, signers: Collection[PeerId], now: float) -> bool:
    """Whether votes of these members of a plan make a certificate that this node accepts now."""
    least, record = state.context.manifest.group.min_peers, state.record
    if record is None:
        return len(signers) >= max(plan.majority, least)
    away = plan.plan.away if isinstance(plan.plan, TrustPlan) else ()
    quorum = quorum_of(record, plan.members, away, least)
    if quorum.is_full(signers):
        return True
    return quorum.is_degraded(signers) and may_certify(state, quorum.voting(signers), now)


def is_full(state: RoundState, plan: OpenPlan, signers: Collection[PeerId]) -> bool:
    """Whether votes of these members of a plan need no patience."""
    return certifies(state, plan, signers, -math.inf)


def majority_lost(state: RoundState, now: float) -> bool:
    """Whether so many members of the plan are absent that the rest certifies nothing."""
    plan, absent = state.plan, state.absent
    if plan is None:
        return False
    least = state.context.manifest.group.min_peers
    here = [peer for peer in plan.members if peer not in absent]
    if state.record is None:
        return len(here) < plan.majority
    return len(here) < least or not certifies(state, plan, here, now)


def voters_among(state: RoundState, peers: Collection[PeerId]) -> int:
    """The voters among `peers` whose votes count after this node's tip."""
    return len(state.counted_voters(peers).intersection(peers))


def missing_quorum(state: RoundState, here: Collection[PeerId], now: float) -> str:
    """Say why the peers `here`, with this node, certify nothing now; empty where they may.

    A merge needs a quorum like any other certificate, and no patience replaces it.
    """
    patience = patience_of(state)
    if patience is None:
        return ""
    here = {*here, state.context.me}
    present = voters_among(state, here)
    patience = replace(patience, voters=len(state.counted_voters(here)))
    if state.merge is None and patience.is_patient(present, now):
        return ""
    if enough(present, patience.voters):
        return ""
    needed = patience.voters // 2 + 1
    reason = (
        f"{present} of {patience.voters} voters of this run are connected, "
        f"and a full certificate needs {needed}"
    )
    if present and state.merge is None:
        left_s = max(0.0, patience.patient_at(present) - now)
        reason += f"; without more voters, this node goes on with {present} in {left_s:.0f} s"
    return reason


def may_certify(state: RoundState, signers: int, now: float) -> bool:
    """Whether this node assembles or signs a certificate of so many voters now."""
    patience = patience_of(state)
    if patience is None or enough(signers, patience.voters):
        return True
    return state.merge is None and patience.is_patient(signers, now)
