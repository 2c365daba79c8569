"""Whether a Cut fits its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.errors import PeerFault
from protocol.messages import Inclusion
from protocol.run.manifest import Manifest

if TYPE_CHECKING:
    from protocol.planning.plan import OpenPlan


def check_cut(cut: Inclusion, plan: OpenPlan, manifest: Manifest, *, merging: bool = False) -> None:
    """Whether a Cut fits its plan; that of a merge includes nobody.

    Raises `PeerFault("bad_plan")`.
    """
    size = len(plan.members)
    for name, indices in (("contributors", cut.contributors), ("present", cut.present)):
        if list(indices) != sorted(set(indices)) or any(i >= size for i in indices):
            raise PeerFault(
                "bad_plan",
                f"the cut's {name} {indices} are not members of a plan of {size} in order",
            )
    if len(cut.owners) != size or not set(cut.owners) <= set(cut.present):
        raise PeerFault("bad_plan", f"the cut's owners {cut.owners} do not own the {size} slices")
    if not set(cut.contributors) <= set(cut.present) or len(cut.present) < manifest.group.min_peers:
        raise PeerFault(
            "bad_plan",
            f"a cut of {len(cut.contributors)} contributors among {len(cut.present)} present",
        )
    if bool(cut.contributors) == merging or any(
        plan.offers[i].samples == 0 for i in cut.contributors
    ):
        raise PeerFault("bad_plan", "a cut that includes somebody who offered nothing, or nobody")
