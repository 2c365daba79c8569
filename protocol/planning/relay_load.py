"""What relays must carry in a round, and how long that takes.

Two members that routers keep apart send each other slices and results through a third node. A relay
of many pairs carries more than any member: with N of n members behind routers it is
2 N (N - 1) V / n bytes a round. So the time model adds the time of the busiest relay, and the
choice may put such pairs into several groups.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.network.relayed_pairs import RelayedPair
from protocol.planning.group_proposals import Groups
from protocol.planning.vector_sizes import VectorSizes


def relay_s(
    pairs: Sequence[RelayedPair],
    groups: Groups,
    shares: Sequence[float],
    bits: VectorSizes,
    usual_bps: float,
) -> float:
    """The seconds in which the busiest relay carries what these groups send through it.

    Args:
        pairs: the relayed pairs among the plan's members.
        groups: the members of each group, by index.
        shares: the share of the vector that each position owns.
        bits: of the whole vector.
        usual_bps: what a relay that nobody measured carries.
    """
    place = {i: (number, k) for number, group in enumerate(groups) for k, i in enumerate(group)}
    load_s: dict[bytes, float] = {}
    for pair in pairs:
        (one_group, one), (other_group, other) = place[pair.sender], place[pair.to]
        moved = 0.0
        if one_group == other_group:
            # The other's slice of the own contribution, and the result of the own slice.
            moved = _share(shares, other) * bits.offer + _share(shares, one) * bits.result
        elif one == other:
            moved = _share(shares, one) / len(groups) * (bits.partial + bits.result)
        seconds = moved / (pair.capacity_bps or usual_bps)
        load_s[pair.relay] = load_s.get(pair.relay, 0.0) + seconds
    return max(load_s.values(), default=0.0)


def _share(shares: Sequence[float], position: int) -> float:
    """What a position owns. Members beyond the positions of the smallest group own nothing."""
    return shares[position] if position < len(shares) else 0.0


def relay_text(pairs: Sequence[RelayedPair], groups: Groups) -> str:
    """What a plan's reason says of relays; empty where no group needs one."""
    group_of = {i: number for number, group in enumerate(groups) for i in group}
    inside = [pair for pair in pairs if group_of[pair.sender] == group_of[pair.to]]
    if not inside:
        return ""
    count = len({frozenset((pair.sender, pair.to)) for pair in inside})
    relays = len({pair.relay for pair in inside})
    return (
        f"; {count} pair{'s' if count > 1 else ''} of a group"
        f" {'send' if count > 1 else 'sends'} through {relays} relay{'s' if relays > 1 else ''}"
    )
