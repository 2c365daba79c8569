"""The messages of a round after its offers: plan, hold reports, inclusion, results and votes."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta

from protocol.messages.base import (
    MAX_MESSAGE_BYTES,
    MAX_REASON_CHARS,
    Hash,
    Index,
    Indices,
    Message,
    Natural,
    Signed,
)
from protocol.messages.membership import MAX_NOTICES, MAX_VOTERS, Votes, revoked_in
from protocol.messages.sum_terms import SumTerms
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.run.manifest_parts import MAX_GROUP_LIMIT, MAX_ROUND_SECONDS

Seconds = Annotated[float, Meta(gt=0, le=MAX_ROUND_SECONDS)]


class Plan(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """Who averages with whom.

    The members are the senders of `offers`, in ascending order of peer id. Every other field names
    a member by its index in that order.

    `groups` holds every member once. The member at position k of a group reduces chunks
    `[borders[k], borders[k + 1])` of what its group contributes, unless an `Inclusion` names
    another owner. There are as many positions as the smallest group has members: a member further
    back in a larger group reduces nothing. With one group, a member's position is its index.
    """

    parent: Hash
    view: Natural
    number: Natural
    offers: Annotated[tuple[Signed, ...], Meta(min_length=1, max_length=MAX_GROUP_LIMIT)]
    borders: Annotated[tuple[Natural, ...], Meta(max_length=MAX_GROUP_LIMIT + 1)]
    groups: Annotated[tuple[Indices, ...], Meta(min_length=1, max_length=MAX_GROUP_LIMIT)]
    # The time of the whole exchange; None where too little is measured to predict it.
    predicted_s: Annotated[float, Meta(ge=0)] | None = None
    reason: Annotated[str, Meta(max_length=MAX_REASON_CHARS)]
    # What the parent's plan left, by which group sizes are kept; None where it left nothing.
    before: GroupSizeHistory | None = None
    # What this plan leaves for the next one.
    after: GroupSizeHistory | None = None


class PacedPlan(
    Plan, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A plan of rules 3: it also says how long rounds take (`protocol/planning/round_length.py`).

    A field of `Plan` would add bytes to the plans of every run and change what those sign.
    """

    # Seconds of the round that this plan ends, as the parent's plan left them; None after genesis.
    round_s_before: Seconds | None = None
    # Seconds of the round after this plan's certificate.
    round_s: Seconds


class TrustPlan(
    PacedPlan, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A plan of rules 4: it also says who voted for its parent, who left, and what weighs how much.

    A certificate's hash covers its plan and not the votes of one copy. So what counts votes later
    counts those that plans list.
    """

    # The votes of the parent's voters for the parent that the leader holds, in the order of the
    # voters; for a merge, the votes for both parents. Empty after genesis.
    parent_votes: Votes = ()
    # The leaves of voters, each a signed `Leave`, in the order of their senders.
    leaves: Annotated[tuple[Signed, ...], Meta(max_length=MAX_VOTERS)] = ()
    # The owner's revocations, each a signed `Revocation`.
    revocations: Annotated[tuple[Signed, ...], Meta(max_length=MAX_NOTICES)] = ()
    # What the record before the plan makes of the offers' claims.
    terms: SumTerms = SumTerms()

    @property
    def leavers(self) -> tuple[str, ...]:
        """The peers whose leaves the plan lists."""
        return tuple(signed.peer for signed in self.leaves)

    @property
    def away(self) -> tuple[str, ...]:
        """The peers whose votes do not count for this plan: they left, or were revoked by it.

        A revoked voter must not hold up the first plan without it.
        """
        revoked = (revoked_in(signed) for signed in self.revocations)
        return (*self.leavers, *(subject for subject in revoked if subject))


def round_s_of(plan: Plan) -> float | None:
    """Seconds of the round after a plan's certificate; None where all rounds have one length."""
    return plan.round_s if isinstance(plan, PacedPlan) else None


class HoldReport(
    # The tag is part of the signed bytes of rules 2.
    Message,
    frozen=True,
    kw_only=True,
    array_like=True,
    tag="Held",
    forbid_unknown_fields=True,
):
    """A reducer reports to the leader whose contributions it holds whole.

    The reducer checked the bytes against the members' offers.
    """

    plan: Hash
    contributors: Indices


class Withdrawal(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A member of a plan takes no part in it, so no other member needs to wait for it."""

    plan: Hash
    reason: Annotated[str, Meta(max_length=MAX_REASON_CHARS)]


class Inclusion(
    # The tag is part of the signed bytes of rules 2.
    Message,
    frozen=True,
    kw_only=True,
    array_like=True,
    tag="Cut",
    forbid_unknown_fields=True,
):
    """The leader closes the set of included contributions.

    `owners[i]` does what the plan assigns to member i. Inclusion n + 1 replaces inclusion n.
    """

    plan: Hash
    number: Annotated[int, Meta(ge=1, le=MAX_GROUP_LIMIT)]
    contributors: Indices
    # Members that the leader considers alive: they lead the rounds after this one.
    present: Indices
    owners: Indices
    reason: Annotated[str, Meta(max_length=MAX_REASON_CHARS)]


class GroupSum(
    # The tag is part of the signed bytes of rules 2.
    Message,
    frozen=True,
    kw_only=True,
    array_like=True,
    tag="RowSum",
    forbid_unknown_fields=True,
):
    """A reducer signs the digest of its group's sum, for a counterpart that finishes `slice`.

    `part` is the member whose part of the vector was summed over its group. The bytes follow on the
    bulk stream: the group's mean in float32. Its weight follows from the inclusion.
    """

    plan: Hash
    inclusion: Hash
    part: Index
    slice: Index
    root: Hash


class SliceResult(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A reducer signs the digest of its slice's encoded mean.

    The bytes follow on the bulk stream.
    """

    plan: Hash
    inclusion: Hash
    slice: Index
    root: Hash


class Vote(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A voter's word for one outcome of a round.

    All votes for one outcome are the same bytes. Their digest names the certificate.
    """

    parents: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=2)]
    number: Natural
    view: Natural
    plan: Hash
    inclusion: Hash
    result: Hash
    state: Hash


class TrustVote(
    Vote, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A vote of rules 4: it also names what the voter knows of the run's members.

    A difference in these fields shows as a divided vote.
    """

    # The digest of the parent's membership record; for a merge, of the preferred parent's.
    record: Hash
    # The L2 norm of the decoded mean after scaling, before the outer step, per second of the
    # round's recorded length; 0 for a merge. Finite.
    step_norm: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step_norm) and self.step_norm >= 0.0):
            raise ValueError(f"a step norm of {self.step_norm}")


class Announce(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """Carries a certificate to peers that may not have it; the certificate proves itself."""

    certificate: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
