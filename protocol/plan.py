"""The plan: who averages with whom, a pure function of the Ready messages.

Whoever receives a plan makes it again from the offers inside and compares: a leader can choose whose offers it waited for, nothing else.
One row so far: up to `max_group` members form one butterfly, whose slices follow the members' bandwidths (`slices.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.admission import check_admission
from protocol.binding import wallet_of_offer
from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.layout import CHUNK_ELEMENTS, MAX_PARAMETERS, share_out
from protocol.manifest import Manifest
from protocol.messages import Plan, Ready, Signed, open_as
from protocol.slices import best_shares


class OpenPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan with its offers opened and checked. Member i is `members[i]` everywhere."""

    plan: Plan
    digest: Digest
    leader: PeerId
    members: tuple[PeerId, ...]
    offers: tuple[Ready, ...]

    @property
    def index(self) -> dict[PeerId, int]:
        return {peer: i for i, peer in enumerate(self.members)}

    @property
    def majority(self) -> int:
        """Votes that make a certificate."""
        return len(self.members) // 2 + 1


def make_plan(
    parent: Digest, view: int, number: int, offers: Iterable[tuple[Signed, Ready]], manifest: Manifest, chunks: int, *, leader: PeerId = ""
) -> Plan:
    """The plan for these offers. When more than `max_group` want in, a hash that changes every view decides whose work waits a round;
    never the leader's, because whoever is not in a plan does not carry it out."""
    group = manifest.group
    by_peer: dict[PeerId, Signed] = {}
    links: dict[PeerId, Ready] = {}
    for signed, ready in offers:
        by_peer[signed.peer], links[signed.peer] = signed, ready
    if len(by_peer) < group.min_peers:
        raise ValueError(f"{len(by_peer)} offers cannot make a plan of at least {group.min_peers}")
    drawn = sorted(by_peer, key=lambda peer: (peer != leader, digest(parent, view.to_bytes(8, "big"), peer.encode())))
    chosen = sorted(drawn[: group.max_group])
    reason = f"one row of {len(chosen)}: everybody who was ready fits max_group {group.max_group}"
    if len(drawn) > len(chosen):
        reason = f"one row of {len(chosen)}: {len(drawn)} were ready, max_group is {group.max_group}, the others' work waits a round"
    return Plan(
        parent=parent,
        view=view,
        number=number,
        offers=tuple(by_peer[peer] for peer in chosen),
        borders=share_out(chunks, best_shares([links[peer].up_bits for peer in chosen], [links[peer].down_bits for peer in chosen])),
        reason=reason,
    )


def open_plan(signed: Signed, run: Digest, manifest: Manifest, chunks: int | None, *, trusted: bool = False) -> OpenPlan:
    """Check a plan by making it again. Raises `PeerFault` that says what does not fit.

    `chunks` is the size of the run's model; None for an observer, which has no model and takes the plan's word for it.
    """
    plan = open_as(Plan, signed, run, trusted=trusted)
    opened = [(offer, open_as(Ready, offer, run, trusted=trusted)) for offer in plan.offers]
    members = tuple(offer.peer for offer in plan.offers)
    for signed_offer, ready in opened:
        if (ready.parent, ready.view, ready.number) != (plan.parent, plan.view, plan.number):
            raise PeerFault("bad_plan", f"the offer of {short(signed_offer.peer)} is for another round or view")
        if ready.samples > manifest.limits.max_samples:
            raise PeerFault(
                "bad_plan", f"{short(signed_offer.peer)} offers {ready.samples} samples, the run allows {manifest.limits.max_samples}"
            )
        wallet_of_offer(manifest, signed_offer.peer, ready)
        check_admission(manifest, signed_offer.peer, ready)
        if bool(ready.samples) != bool(ready.seq):
            raise PeerFault("bad_plan", f"{short(signed_offer.peer)} offers seq {ready.seq} with {ready.samples} samples")
    if len(set(members)) != len(members):
        raise PeerFault("bad_plan", "a member is in the plan twice")
    if not manifest.group.min_peers <= len(members) <= manifest.group.max_group:
        raise PeerFault("bad_plan", f"a plan of {len(members)} members")
    if signed.peer not in members:
        raise PeerFault("bad_plan", "a plan without its leader")
    size = plan.borders[-1] if chunks is None and plan.borders else chunks
    if size is None or size > MAX_PARAMETERS // CHUNK_ELEMENTS:
        raise PeerFault("bad_plan", f"a plan for a model of {size} chunks")
    again = make_plan(plan.parent, plan.view, plan.number, opened, manifest, size, leader=signed.peer)
    if (again.offers, again.borders) != (plan.offers, plan.borders):
        raise PeerFault("bad_plan", "the plan does not follow from its offers")
    return OpenPlan(plan=plan, digest=signed.digest, leader=signed.peer, members=members, offers=tuple(ready for _, ready in opened))
