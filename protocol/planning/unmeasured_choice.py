"""The choice of groups while too little of the network is measured to predict anything."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from protocol.averaging.group_layout import even_groups
from protocol.averaging.slice_sizes import best_shares
from protocol.network.flows import Flows, product_of
from protocol.network.network_snapshot import UNKNOWN, NetworkSnapshot
from protocol.planning.choice_reasons import because_contradictory, because_unmeasured
from protocol.planning.chosen_groups import GroupChoice
from protocol.planning.group_proposals import (
    GroupBounds,
    GroupProposer,
    Groups,
    equal_shares,
    fewest_groups,
    most_groups,
    nearest_count,
)
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.time_model import TimeModel
from protocol.planning.vector_sizes import VectorSizes

UNMEASURED_GROUP = 32
"""So many members average well enough in one group on any network, until something is measured."""

GUESSED_NETWORKS = ((100_000_000, 0.001), (20_000_000, 0.01), (20_000_000, 0.1))
"""Networks that the members might have: bits a second of a link, and the loss of a path."""


def choose_unmeasured(
    snapshot: NetworkSnapshot,
    bounds: GroupBounds,
    sizes: VectorSizes,
    before: GroupSizeHistory | None,
) -> GroupChoice:
    """Choose groups for members whose links are not measured yet."""
    members = len(snapshot.members)
    if before is not None:
        return _keep_size(snapshot, bounds, before)
    if members <= UNMEASURED_GROUP or not any(member.at for member in snapshot.members):
        return without_prediction(snapshot, even_groups(members, bounds.most), bounds)
    return _least_regret(snapshot, bounds, sizes)


def without_prediction(
    snapshot: NetworkSnapshot, groups: Groups, bounds: GroupBounds
) -> GroupChoice:
    """Choose the given groups, with slices that follow what members report of their own links."""
    owners = list(zip(*groups, strict=False))
    uplinks = [_weakest([snapshot.members[i].uplink_bps for i in each]) for each in owners]
    downlinks = [_weakest([snapshot.members[i].downlink_bps for i in each]) for each in owners]
    return GroupChoice(
        groups=groups,
        shares=tuple(best_shares(uplinks, downlinks)),
        predicted_s=None,
        reason=because_unmeasured(groups, len(snapshot.members), bounds.most),
        after=None,
    )


def _keep_size(
    snapshot: NetworkSnapshot, bounds: GroupBounds, before: GroupSizeHistory
) -> GroupChoice:
    """Keep the last size, with equal slices: measurements that existed contradict each other now.

    That happens after the network changed as a whole.
    """
    members = len(snapshot.members)
    count = nearest_count(members, before.size, bounds)
    groups = GroupProposer(snapshot).propose(count, bounds)[0]
    return GroupChoice(
        groups=groups,
        shares=equal_shares(groups),
        predicted_s=None,
        reason=because_contradictory(groups),
        after=before,
    )


def _least_regret(
    snapshot: NetworkSnapshot, bounds: GroupBounds, sizes: VectorSizes
) -> GroupChoice:
    """Choose groups that are near the best on each of several guessed networks.

    Groups that are too small for lossy paths take a multiple of the best time. Groups that are too
    large take a fraction more on any network.
    """
    members, proposer = len(snapshot.members), GroupProposer(snapshot)
    fewest, most = fewest_groups(members, bounds), most_groups(members, bounds)
    counts = sorted(
        {fewest, *(1 << k for k in range(most.bit_length()) if fewest <= 1 << k <= most)}
    )
    proposed = [groups for count in counts for groups in proposer.propose(count, bounds)]
    regret = [1.0] * len(proposed)
    for link_bps, loss in GUESSED_NETWORKS:
        guess = NetworkSnapshot(
            members=tuple(
                replace(member, uplink_bps=link_bps, downlink_bps=link_bps)
                for member in snapshot.members
            ),
            flows=Flows(octaves=((1, product_of(loss)),)),
            failure_rate=0.0,
            measured=True,
        )
        model = TimeModel(guess, sizes)
        seconds = [model.estimate(groups, equal_shares(groups)).seconds for groups in proposed]
        regret = [
            max(worst, each / min(seconds)) for worst, each in zip(regret, seconds, strict=True)
        ]
    return without_prediction(snapshot, proposed[regret.index(min(regret))], bounds)


def _weakest(links_bps: Sequence[int]) -> int:
    """Return the slowest of the known links, or `UNKNOWN`."""
    return min((link for link in links_bps if link != UNKNOWN), default=UNKNOWN)
