"""Whether enough voters are here to certify, and how long this node waits for more (rules 4).

Rules on patience: `protocol/membership/patience.py`. Below rules 4 a plan's majority certifies, and
every function here finds that nothing is missing.
"""

from __future__ import annotations

from collections.abc import Collection

from protocol.identity import PeerId
from protocol.membership.patience import Patience, grace_of, is_full
from protocol.round.state import RoundState


def patience_of(state: RoundState) -> Patience | None:
    """How patient this node is after its tip; None below rules 4."""
    record = state.tip.record
    if record is None:
        return None
    grace_s = grace_of(state.context.manifest.trust.quorum_grace_s, state.round_s)
    return Patience(since=state.full_since, grace_s=grace_s, voters=len(record.counted))


def voters_among(state: RoundState, peers: Collection[PeerId]) -> int:
    """The voters of this node's tip among `peers`."""
    record = state.tip.record
    return 0 if record is None else sum(peer in peers for peer in record.counted)


def missing_quorum(state: RoundState, here: Collection[PeerId], now: float) -> str:
    """Say why the peers `here`, with this node, certify nothing now; empty where they may.

    A merge needs a quorum like any other certificate, and no patience replaces it.
    """
    patience = patience_of(state)
    if patience is None:
        return ""
    present = voters_among(state, {*here, state.context.me})
    if state.merge is None and patience.is_patient(present, now):
        return ""
    if is_full(present, patience.voters):
        return ""
    needed = patience.voters // 2 + 1
    reason = (
        f"{present} of {patience.voters} voters of this run are here, "
        f"and a full certificate needs {needed}"
    )
    if present and state.merge is None:
        left_s = max(0.0, patience.patient_at(present) - now)
        reason += f"; without more voters, this node goes on with {present} in {left_s:.0f} s"
    return reason


def may_certify(state: RoundState, signers: int, now: float) -> bool:
    """Whether this node assembles or signs a certificate of so many voters now."""
    patience = patience_of(state)
    if patience is None or is_full(signers, patience.voters):
        return True
    return state.merge is None and patience.is_patient(signers, now)
