"""The terms of a sum: what a plan says about the weights and lengths of its contributions."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.messages.base import Indices, Natural
from protocol.run.manifest_parts import MAX_GROUP_LIMIT


class SumTerms(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What follows from the membership record before a plan, for those who only have the plan.

    A sum, its audit and its replay need these figures. Every member that carries out a plan makes
    them again from its own record (`protocol/membership/plan_terms.py`).
    """

    # What the medians leave of each member's samples (`protocol/averaging/weights.py`).
    weights: Annotated[tuple[Natural, ...], Meta(max_length=MAX_GROUP_LIMIT)] = ()
    # The members of the plan that vote, and those that are newcomers, ascending.
    voters: Indices = ()
    newcomers: Indices = ()
    # The lower median of the voters' samples.
    median: Natural = 0
    # The usual L2 norm of a step of this round; 0 before enough certificates.
    norm: Annotated[float, Meta(ge=0, le=1e300)] = 0.0
