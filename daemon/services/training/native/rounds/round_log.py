"""Records in the journal: the phases of each round with their times, and each certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from daemon.swarm.ancestry import LineageEntry
from protocol.certificates.next_tip import weights_of
from protocol.identity import PeerId
from protocol.journal import (
    Contributor,
    JournalEvent,
    MemberPlace,
    Newcomer,
    PhaseEntered,
    RoundCertified,
)
from protocol.membership.patience import is_full
from protocol.membership.role import Role, role_of
from protocol.messages.round import round_s_of
from protocol.network.network_snapshot import places_of
from protocol.planning.paced_plan import length_reason_in
from protocol.planning.plan import OpenPlan
from protocol.round.state import RoundState
from protocol.run.manifest import Manifest

KEPT_PLANS = 8
"""Plans whose places are kept: a simulated swarm works on one or two at once."""


def certified(
    made: LineageEntry,
    *,
    me: PeerId = "",
    state_digest: str = "",
    outcome: str = "observed",
    phase_seconds: dict[str, float] | None = None,
    kept: Mapping[int, float] | None = None,
    manifest: Manifest | None = None,
) -> RoundCertified:
    """Return the journal's event for a certificate.

    `me` is empty for an observer. `kept` says which share of each contribution the clip left in
    this node's own sums, by member of the plan. `manifest` is that of the run; None says nothing
    of members.
    """
    certificate, plan = made.certificate, made.certificate.plan
    return RoundCertified(
        number=certificate.outcome.number,
        view=certificate.outcome.view,
        certificate=certificate.hash.hex(),
        parent=certificate.outcome.parents[0].hex(),
        members=plan.members,
        shares=tuple(
            Contributor(
                peer=plan.members[i],
                samples=plan.offers[i].samples,
                loss=plan.offers[i].loss,
                weight=weight,
                kept=(kept or {}).get(i),
            )
            for i, weight in zip(certificate.contributors, certificate.weights, strict=True)
        ),
        samples=certificate.samples,
        loss=certificate.loss,
        state_digest=state_digest,
        outcome=outcome,
        phase_seconds=phase_seconds or {},
        reason=certificate.inclusion.reason,
        plan=plan.plan.reason,
        group_sizes=tuple(len(group) for group in plan.plan.groups),
        places=_places(_NamedPlan(plan)),
        predicted_s=plan.plan.predicted_s,
        voters=certificate.voters,
        next_round_s=round_s_of(plan.plan),
        next_round_reason=length_reason_in(plan.plan),
        **_of_members(made, manifest),
    )


class _NamedPlan:
    """A plan that equals another one with the same digest.

    The members of a simulated swarm share one process, and so the places of one plan.
    """

    def __init__(self, plan: OpenPlan) -> None:
        self.plan = plan

    def __hash__(self) -> int:
        return hash(self.plan.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NamedPlan) and other.plan.digest == self.plan.digest


@lru_cache(maxsize=KEPT_PLANS)
def _places(named: _NamedPlan) -> tuple[MemberPlace, ...]:
    """Return the group and the measured place of each member, as the plan's leader saw them."""
    plan = named.plan
    group_of = {i: group for group, members in enumerate(plan.plan.groups) for i in members}
    places = places_of(list(zip(plan.members, plan.offers, strict=True)))
    return tuple(
        MemberPlace(group=group_of[i])
        if at is None
        else MemberPlace(
            group=group_of[i],
            is_measured=True,
            x_us=at.x_us,
            y_us=at.y_us,
            z_us=at.z_us,
            height_us=at.height_us,
        )
        for i, at in enumerate(places)
    )


def _of_members(made: LineageEntry, manifest: Manifest | None) -> dict[str, Any]:
    """Return what the membership record says; nothing in runs of earlier rules."""
    record, certificate = made.tip.record, made.certificate
    if record is None or manifest is None:
        return {}
    plan, weights = certificate.plan, weights_of(certificate)
    signed = len(frozenset(certificate.voters).intersection(record.counted))
    return {
        "record_voters": record.voters,
        "newcomers": tuple(
            Newcomer(
                peer=peer,
                favours=record.speaks_for(peer),
                against=record.speaks_against(peer),
                voters=len(record.voters),
            )
            for peer in plan.members
            if role_of(record, manifest, peer) is Role.NEWCOMER
        ),
        "clipped": tuple(
            peer
            for peer, weight in weights.items()
            if weight < plan.offers[plan.index[peer]].samples
        ),
        "is_degraded": not is_full(signed, len(record.counted)),
    }


class RoundLog:
    """Times the phases of one node's rounds and records how they ended."""

    def __init__(
        self, me: PeerId, record: Callable[[JournalEvent], None], manifest: Manifest | None = None
    ) -> None:
        self._me, self._manifest = me, manifest
        self._record = record
        self._entered_at = 0.0
        self._seconds: dict[str, float] = {}

    def began(self, state: RoundState, reason: str, now: float) -> None:
        """Record the first phase of this start, and how the node resumed."""
        self._entered_at = now
        self._record(
            PhaseEntered(number=state.number, view=0, phase=state.phase.value, reason=reason)
        )

    def moved(self, before: RoundState, after: RoundState, now: float) -> None:
        """Add the time of a phase that the node has left."""
        if before.phase is not after.phase:
            self._seconds[before.phase.value] = (
                self._seconds.get(before.phase.value, 0.0) + now - self._entered_at
            )
            self._entered_at = now

    def adopted(
        self,
        path: list[LineageEntry],
        state_digest: str,
        had_offer: bool,
        kept: Mapping[int, float],
    ) -> None:
        """Record the certificates up to a new tip. The node has the state of the last one.

        `kept` is of the last one; see `certified`.
        """
        for made in path:
            last = made is path[-1]
            self._record(
                certified(
                    made,
                    me=self._me,
                    state_digest=state_digest if last else "",
                    outcome=self._outcome(made, had_offer, last=last),
                    phase_seconds=self._seconds if last else {},
                    kept=kept if last else {},
                    manifest=self._manifest,
                )
            )
        self._seconds = {}

    def _outcome(self, made: LineageEntry, had_offer: bool, *, last: bool) -> str:
        certificate = made.certificate
        if self._me in certificate.listed:
            return "counted"
        if len(certificate.outcome.parents) == 2 or not last:
            # A merge counts no work. Earlier certificates were made without this node.
            return "observed"
        if not had_offer:
            return "idle"
        return "lost" if self._me in certificate.plan.members else "late"
