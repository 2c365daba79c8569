"""The length of the next round as a plan carries it."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.codec import chunk_bytes, codec_named
from protocol.errors import PeerFault
from protocol.messages.base import MAX_REASON_CHARS
from protocol.messages.offer import Ready
from protocol.messages.round import PacedPlan, Plan
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.round_length import LENGTH_REASON, guessed_exchange_s, length_reason
from protocol.rules.registry import rules_of
from protocol.run.manifest import Manifest


def paced(plan: Plan, offers: Iterable[Ready], manifest: Manifest, left: float | None) -> Plan:
    """Add the length of the next round to a plan, where the run's rules choose it.

    Args:
        plan: a plan without the length.
        offers: its offers.
        manifest: the run's manifest.
        left: the length that the plan's parent left; None after genesis.
    """
    next_round_s = rules_of(manifest).next_round_s
    if next_round_s is None:
        return plan
    predicted_s = _exchange_s(plan, offers, manifest)
    round_s = next_round_s(left, predicted_s, manifest.round)
    fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
    why = length_reason(round_s, predicted_s, manifest.round)
    fields["reason"] = f"{plan.reason}; {why}"[:MAX_REASON_CHARS]
    return PacedPlan(**fields, round_s_before=left, round_s=round_s)


def check_length(plan: Plan, offers: Iterable[Ready], manifest: Manifest) -> None:
    """Check that a plan names the length of the next round exactly as the run's rules choose it.

    Raises:
        PeerFault: "bad_plan".
    """
    next_round_s = rules_of(manifest).next_round_s
    if not isinstance(plan, PacedPlan):
        if next_round_s is not None:
            raise PeerFault("bad_plan", "a plan without the length of the next round")
        return
    if next_round_s is None:
        raise PeerFault("bad_plan", f"rules {manifest.rules} do not choose the length of rounds")
    chosen_s = next_round_s(
        plan.round_s_before, _exchange_s(plan, offers, manifest), manifest.round
    )
    if plan.round_s != chosen_s:
        raise PeerFault(
            "bad_plan",
            f"a plan for a next round of {plan.round_s:g} s where its own numbers make "
            f"{chosen_s:g} s",
        )


def length_reason_in(plan: Plan) -> str:
    """Return why a plan chose its length of rounds, as its reason says; empty without a length."""
    if not isinstance(plan, PacedPlan):
        return ""
    _, found, why = plan.reason.rpartition(f"; {LENGTH_REASON}")
    return f"{LENGTH_REASON}{why}" if found else ""


def false_memory(plan: Plan, left: GroupSizeHistory | None, round_s: float | None) -> str | None:
    """Say what a plan remembers wrongly of its parent's plan; None where it remembers all.

    Args:
        plan: the plan.
        left: the group sizes that the parent left; None after genesis and for a merge.
        round_s: the length of rounds that the parent left, for a merge that of the preferred side;
            None after genesis, and where all rounds of the run have one length.
    """
    if plan.before != left:
        return "remembers other groups than its parent left"
    before = plan.round_s_before if isinstance(plan, PacedPlan) else None
    if before != round_s:
        return f"ends a round of {_seconds(before)} where its parent left {_seconds(round_s)}"
    return None


def _seconds(round_s: float | None) -> str:
    return "the first length" if round_s is None else f"{round_s:g} s"


def _exchange_s(plan: Plan, offers: Iterable[Ready], manifest: Manifest) -> float | None:
    """The exchange as the plan predicts it; None where too little is known.

    Transfers that are quick are not measured. So a run in which no link was ever measured counts as
    one on home links: where its links are slower, its exchanges take longer, and are measured.
    A merge exchanges nothing: its offers hold no samples.
    """
    if not any(offer.samples for offer in offers):
        return None
    if plan.predicted_s is None and plan.before is None:
        offer_bytes = plan.borders[-1] * chunk_bytes(codec_named(manifest.codec))
        return guessed_exchange_s(offer_bytes, len(plan.offers))
    return plan.predicted_s
