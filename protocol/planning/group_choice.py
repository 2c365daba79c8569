"""The choice of groups: which groups a round gets, and why.

The choice is the fastest proposal by the time model, with three reservations:

- A little time is given up to move bytes less far: links between distant peers are few, shared, and
  metered.
- Since rules 3, groups of two must save a little time: the leader cannot tell which of two members
  was slow, and counts neither.
- The last round's size is kept, unless another one was much better in two consecutive rounds or a
  little better in three. So sizes do not flap. `GroupSizeHistory` remembers the count.
- Nothing is predicted or remembered until enough is measured (`unmeasured_choice.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.averaging.slice_sizes import best_shares
from protocol.network.network_snapshot import NetworkSnapshot
from protocol.network.samples import median
from protocol.planning.choice_reasons import because_faster, because_fixed, because_kept
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
from protocol.planning.group_size_history import FEW_ROUNDS, MORE_ROUNDS, GroupSizeHistory
from protocol.planning.time_model import TimeEstimate, TimeModel
from protocol.planning.unmeasured_choice import choose_unmeasured, without_prediction
from protocol.planning.vector_sizes import VectorSizes

LARGE_GAIN, SMALL_GAIN = 0.15, 0.03
"""Gains that justify another size, as shares of the time with the last size.

A large gain counts after `FEW_ROUNDS`, a small one after `MORE_ROUNDS`. Anything less is within the
model's error.
"""

NEARNESS = 0.03
"""The largest share of the time that is given up to move bytes less far."""

PAIR_RISK = 0.03
"""The share of the time that groups of two must save.

In a pair with a slow member, each owner holds its own contribution and lacks the other one. Three
members tell which of them is slow. The model's error is at least as large as this share.
"""

PAIR = 2

FINALISTS = 3
"""How many proposals get their slices sized: sizing takes longer than all the rest."""


class _Proposal(msgspec.Struct, frozen=True, kw_only=True):
    groups: Groups
    shares: tuple[float, ...]
    estimate: TimeEstimate
    # Raises the price; see `PAIR_RISK`.
    risk: float = 0.0

    @property
    def size(self) -> int:
        return group_size(self.groups)

    @property
    def seconds(self) -> float:
        return self.estimate.seconds

    def price(self, furthest: float) -> float:
        """The time, raised by up to `NEARNESS` for the distance that bytes move.

        `furthest` is the distance of the proposal that moves its bytes furthest.
        """
        nearness = NEARNESS * self.estimate.distance / (furthest or 1.0)
        return self.seconds * (1 + nearness) * (1 + self.risk)


def group_size(groups: Groups) -> int:
    """Return the median size of the groups."""
    return median([len(group) for group in groups])


def choose(
    snapshot: NetworkSnapshot,
    bounds: GroupBounds,
    sizes: VectorSizes,
    before: GroupSizeHistory | None,
    *,
    pair_risk: float = PAIR_RISK,
) -> GroupChoice:
    """Choose the groups of a round. Pure, and the same on every machine.

    Args:
        snapshot: what the offers say of the members' links.
        bounds: the sizes that the manifest allows.
        sizes: bytes of the run's vector.
        before: what the parent's plan left.
        pair_risk: the share of the time that groups of two must save.
    """
    if not snapshot.measured:
        return choose_unmeasured(snapshot, bounds, sizes, before)
    members, model, proposer = (
        len(snapshot.members),
        TimeModel(snapshot, sizes),
        GroupProposer(snapshot),
    )
    kept = nearest_count(members, before.size, bounds) if before else None
    counts = _counts(fewest_groups(members, bounds), most_groups(members, bounds))
    proposals = {
        count: _propose(model, proposer, count, bounds, pair_risk)
        for count in sorted({*counts, *([kept] if kept else [])})
    }
    furthest = max(each.estimate.distance for each in proposals.values())
    finalists = sorted(proposals, key=lambda count: (proposals[count].price(furthest), count))
    for count in {*finalists[:FINALISTS], *([kept] if kept else [])}:
        proposals[count] = _with_sized_slices(model, proposals[count])
    best = min(proposals.values(), key=lambda each: (each.price(furthest), each.size))
    if before is None or kept is None or best.size == proposals[kept].size:
        return _chosen(best, _why_faster(best, _contrast(best, proposals.values())))
    return _keep_or_change(before, proposals[kept], best, furthest)


def choose_2(
    snapshot: NetworkSnapshot,
    bounds: GroupBounds,
    sizes: VectorSizes,
    before: GroupSizeHistory | None,
) -> GroupChoice:
    """Choose the groups of a round of rules 2, which treat groups of two like others."""
    return choose(snapshot, bounds, sizes, before, pair_risk=0.0)


def fixed(
    snapshot: NetworkSnapshot, size: int, bounds: GroupBounds, sizes: VectorSizes
) -> GroupChoice:
    """Choose groups of about `size` members, whatever the model predicts.

    Benchmarks compare `choose` with this function.
    """
    members, proposer = len(snapshot.members), GroupProposer(snapshot)
    count = nearest_count(members, size, bounds)
    if not snapshot.measured:
        return without_prediction(snapshot, proposer.propose(count, bounds)[0], bounds)
    model = TimeModel(snapshot, sizes)
    proposal = _with_sized_slices(model, _propose(model, proposer, count, bounds))
    return _chosen(proposal, because_fixed(proposal.groups))


def _keep_or_change(
    before: GroupSizeHistory, kept: _Proposal, best: _Proposal, furthest: float
) -> GroupChoice:
    """Decide whether to leave the last round's size."""
    gain = 1 - best.price(furthest) / kept.price(furthest)
    leaning = 1 if best.size > kept.size else -1
    times = min(before.times + 1 if leaning == before.leaning else 1, MORE_ROUNDS)
    needed = FEW_ROUNDS if gain > LARGE_GAIN else MORE_ROUNDS
    if gain > SMALL_GAIN and times >= needed:
        return _chosen(best, _why_faster(best, kept))
    pair = (kept.groups, kept.estimate), (best.groups, best.estimate)
    if gain <= SMALL_GAIN:
        return _chosen(kept, because_kept(*pair))
    return GroupChoice(
        groups=kept.groups,
        shares=kept.shares,
        predicted_s=kept.seconds,
        reason=because_kept(*pair, found=(times, needed)),
        after=GroupSizeHistory(size=kept.size, leaning=leaning, times=times),
    )


def _propose(
    model: TimeModel,
    proposer: GroupProposer,
    count: int,
    bounds: GroupBounds,
    pair_risk: float = 0.0,
) -> _Proposal:
    """Return the fastest proposal of `count` groups with equal slices."""
    proposals = []
    for groups in proposer.propose(count, bounds):
        shares = equal_shares(groups)
        estimate = model.estimate(groups, shares)
        pairs = len(groups) > 1 and min(len(group) for group in groups) <= PAIR
        risk = pair_risk if pairs else 0.0
        proposals.append(_Proposal(groups=groups, shares=shares, estimate=estimate, risk=risk))
    return min(proposals, key=lambda each: each.seconds)


def _with_sized_slices(model: TimeModel, proposal: _Proposal) -> _Proposal:
    """Size the slices by the weakest owner of each position, if that is faster."""
    shares = tuple(best_shares(*model.weakest(proposal.groups)))
    estimate = model.estimate(proposal.groups, shares)
    if estimate.seconds >= proposal.seconds:
        return proposal
    return msgspec.structs.replace(proposal, shares=shares, estimate=estimate)


def _counts(fewest: int, most: int) -> list[int]:
    """Return the numbers of groups to try: all up to 8, then 12, 16, 24, 32, 48 and so on."""
    counts, step = list(range(1, 9)), 8
    while counts[-1] < most:
        counts += [step + step // 2, 2 * step]
        step *= 2
    return sorted({fewest, most, *(count for count in counts if fewest <= count <= most)})


def _contrast(best: _Proposal, proposals: Iterable[_Proposal]) -> _Proposal | None:
    """Return the proposal of another size that the reason compares with.

    That is a faster one that moves its bytes further. If there is none, it is the single group, or
    else the fastest.
    """
    others = [each for each in proposals if each.size != best.size]
    fastest = min(others, key=lambda each: each.seconds, default=None)
    single = [each for each in others if len(each.groups) == 1]
    if single and fastest is not None and fastest.seconds >= best.seconds:
        return single[0]
    return fastest


def _why_faster(best: _Proposal, other: _Proposal | None) -> str:
    return because_faster(
        (best.groups, best.estimate), (other.groups, other.estimate) if other else None
    )


def _chosen(proposal: _Proposal, reason: str) -> GroupChoice:
    return GroupChoice(
        groups=proposal.groups,
        shares=proposal.shares,
        predicted_s=proposal.seconds,
        reason=reason,
        after=GroupSizeHistory(size=proposal.size),
    )
