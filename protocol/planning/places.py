"""Places in a plan of rules 4, and groups in which only members reduce.

A plan holds every ready voter, then members by longest wait. Newcomers get what is left; where
places are short, at most 16 are theirs, so that free keys do not take the members' places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from protocol.identity import PeerId
from protocol.membership.record import MembershipRecord
from protocol.membership.role import Role
from protocol.planning.chosen_groups import GroupChoice
from protocol.planning.group_proposals import GroupBounds

NEWCOMERS_PLACES = 16
"""The places that newcomers get where members want all of them."""

RANKS: Mapping[Role, int] = {Role.NEWCOMER: 0, Role.MEMBER: 1, Role.VOTER: 2}
"""Who waits last where two members cannot be in one plan."""

T = TypeVar("T")


def placed(
    drawn: Sequence[PeerId],
    roles: Mapping[PeerId, Role],
    record: MembershipRecord,
    places: int,
) -> list[PeerId]:
    """Order the ready peers by who gets a place first.

    Args:
        drawn: the ready peers, in an order that changes with every view.
        roles: the role of each.
        record: says when each was in a plan for the last time.
        places: how many a plan holds.
    """
    by_role = {role: [peer for peer in drawn if roles[peer] is role] for role in Role}
    members = sorted(by_role[Role.MEMBER], key=lambda peer: record.planned.get(peer, 0))
    newcomers = by_role[Role.NEWCOMER]
    kept = min(NEWCOMERS_PLACES, len(newcomers))
    first = members[: max(0, places - len(by_role[Role.VOTER]) - kept)]
    rest = members[len(first) :]
    return [*by_role[Role.VOTER], *first, *newcomers[:kept], *rest, *newcomers[kept:]]


def choose_among_members(
    offers: list[T],
    members: Sequence[int],
    bounds: GroupBounds,
    choose: Callable[[list[T], GroupBounds], GroupChoice],
) -> tuple[list[T], GroupChoice]:
    """Choose groups of members, and add the newcomers where the groups are smallest.

    Newcomers stand behind the positions that own a slice. Those for whom no group has room wait.

    Args:
        offers: all offers, in the plan's order.
        members: the indices of those who may reduce; at least one, and not all.
        bounds: the sizes that groups may have.
        choose: chooses groups for some of the offers.

    Returns:
        The offers that have a place, and the choice for them.
    """
    newcomers = [i for i in range(len(offers)) if i not in set(members)]
    least = min(bounds.least, len(members))
    choice = choose([offers[i] for i in members], replace(bounds, least=least))
    groups = [[members[i] for i in group] for group in choice.groups]
    for newcomer in newcomers:
        group = min(groups, key=len)
        if len(group) < bounds.most:
            group.append(newcomer)
    kept = sorted(i for group in groups for i in group)
    place = {i: at for at, i in enumerate(kept)}
    found = tuple(tuple(place[i] for i in group) for group in groups)
    # Every group has the positions of the smallest one. Those behind the owners own nothing.
    positions = min(len(group) for group in found)
    shares = (*choice.shares, *(0.0,) * (positions - len(choice.shares)))
    reason = f"{choice.reason}; with newcomers that sum nothing: {len(kept) - len(members)}"
    chosen = replace(choice, groups=found, shares=shares, reason=reason)
    return [offers[i] for i in kept], chosen
