"""The sentence that a plan gives for its groups."""

from __future__ import annotations

from protocol.planning.group_proposals import Groups
from protocol.planning.time_model import TimeEstimate


def groups_in_words(groups: Groups) -> str:
    """Describe groups by their sizes: "one group of 24", "3 groups of 8", "4 groups of 7 to 9"."""
    least, most = min(len(group) for group in groups), max(len(group) for group in groups)
    size = f"{least}" if least == most else f"{least} to {most}"
    return f"one group of {size}" if len(groups) == 1 else f"{len(groups)} groups of {size}"


def because_unmeasured(groups: Groups, members: int, most: int) -> str:
    """Say which groups were chosen before the network is measured."""
    if len(groups) == 1:
        return f"all {members} ready nodes average in one group"
    return (
        f"{groups_in_words(groups)}: {members} nodes are ready, max_group is {most}, "
        "and the links between them are not measured yet"
    )


def because_contradictory(groups: Groups) -> str:
    """Say that the group size stays because the measurements contradict each other."""
    return f"{groups_in_words(groups)} as before: the measurements contradict each other"


def because_fixed(groups: Groups) -> str:
    """Say that the group size was given."""
    return f"{groups_in_words(groups)}: the size is fixed"


def because_faster(
    chosen: tuple[Groups, TimeEstimate], other: tuple[Groups, TimeEstimate] | None
) -> str:
    """Say why the chosen groups are better than the best of another size."""
    groups, estimate = chosen
    words = groups_in_words(groups)
    if other is None:
        return f"{words}; averaging takes about {estimate.seconds:.3g} s"
    other_words, than = groups_in_words(other[0]), other[1]
    if than.seconds < estimate.seconds:
        share = 100 * estimate.distance / (than.distance or 1)
        return (
            f"{words}, about {estimate.seconds:.3g} s; {other_words} would take "
            f"{than.seconds:.3g} s, but these move {share:.0f}% of the bytes times distance"
        )
    return f"{words}, about {estimate.seconds:.3g} s; {other_words} would take {than.seconds:.3g} s"


def because_kept(
    kept: tuple[Groups, TimeEstimate],
    best: tuple[Groups, TimeEstimate],
    found: tuple[int, int] | None = None,
) -> str:
    """Say why the last round's group size stays although another size is faster.

    Args:
        found: in how many consecutive rounds the other size was better, and how many a change
            needs. None if the gain is too small to
            count.
    """
    words = (
        f"{groups_in_words(kept[0])} as before, about {kept[1].seconds:.3g} s; "
        f"{groups_in_words(best[0])} would take {best[1].seconds:.3g} s"
    )
    return f"{words} (found in {found[0]} of {found[1]} rounds)" if found else words
