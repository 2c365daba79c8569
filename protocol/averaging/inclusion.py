"""Whether an inclusion fits its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.errors import PeerFault
from protocol.messages.round import Inclusion
from protocol.run.manifest import Manifest

if TYPE_CHECKING:
    from protocol.planning.plan import OpenPlan


def check_inclusion(
    inclusion: Inclusion, plan: OpenPlan, manifest: Manifest, *, merging: bool = False
) -> None:
    """Check that an inclusion fits its plan; a merge's inclusion includes nobody.

    Raises:
        PeerFault: "bad_plan".
    """
    size = len(plan.members)
    for name, indices in (("contributors", inclusion.contributors), ("present", inclusion.present)):
        if list(indices) != sorted(set(indices)) or any(i >= size for i in indices):
            raise PeerFault(
                "bad_plan",
                f"the inclusion's {name} {indices} are not members of a plan of {size} in order",
            )
    if len(inclusion.owners) != size or not set(inclusion.owners) <= set(inclusion.present):
        raise PeerFault(
            "bad_plan", f"the inclusion's owners {inclusion.owners} do not own the {size} slices"
        )
    if (
        not set(inclusion.contributors) <= set(inclusion.present)
        or len(inclusion.present) < manifest.group.min_peers
    ):
        raise PeerFault(
            "bad_plan",
            f"an inclusion of {len(inclusion.contributors)} contributors "
            f"among {len(inclusion.present)} present",
        )
    if bool(inclusion.contributors) == merging or any(
        plan.offers[i].samples == 0 for i in inclusion.contributors
    ):
        raise PeerFault(
            "bad_plan", "an inclusion without contributors, or with a member that offered nothing"
        )


def expected_contributors(plan: OpenPlan) -> tuple[int, ...]:
    """The members that offered something: all of them contribute unless one is lost or slow."""
    return tuple(i for i, offer in enumerate(plan.offers) if offer.samples)


def counted_reason(counted: int, offered: int) -> str:
    """Say how many of the offered contributions an inclusion counts."""
    return f"{counted} of {offered} contributions counted"


def expected_inclusion(plan: OpenPlan) -> Inclusion:
    """The inclusion that the leader signs where nobody is lost, slow or withdrawn.

    It follows from the plan, so every member knows its digest before the leader sends it.
    """
    contributors, everybody = expected_contributors(plan), tuple(range(len(plan.members)))
    return Inclusion(
        plan=plan.digest,
        number=1,
        contributors=contributors,
        present=everybody,
        owners=everybody,
        reason=counted_reason(len(contributors), len(contributors)),
    )


def is_expected(inclusion: Inclusion, plan: OpenPlan) -> bool:
    """Whether everyone contributes who offered something, and every member does its own work."""
    return inclusion.contributors == expected_contributors(plan) and inclusion.owners == tuple(
        range(len(plan.members))
    )
