"""Which groups a round gets, and why, in a sentence.

The fastest by the model, with three reservations. A little time is given up for moving bytes less
far: links between far peers are few, shared and paid for by somebody. The size of the last round is
kept unless another one was better by 15% in two rounds running, or by a little in three, so that
groups do not flap; that is what `GroupSizeHistory` remembers. And nothing is predicted, nor remembered,
before enough is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from protocol.averaging.group_layout import even_groups
from protocol.averaging.slice_sizes import best_shares
from protocol.network.flows import Flows, product_of
from protocol.network.network_snapshot import UNKNOWN, NetworkSnapshot
from protocol.network.samples import median
from protocol.planning.group_proposals import GroupBounds, GroupProposer, Groups
from protocol.planning.group_size_history import LATER, SOON, GroupSizeHistory
from protocol.planning.time_model import TimeEstimate, TimeModel, VectorSizes

MUCH, LITTLE = (
    0.15,
    0.03,
    # Of the time with the last size: gains worth a change after two rounds and after three; less is
    # within the model's error.
)
# Of the time at most is given up for moving bytes less far, and all of it only for not moving them
# at all.
NEARNESS = 0.03
# Members at most whom one group holds well enough until something is measured, whatever the network.
UNMEASURED = 32
# Of a home's link, and the loss on every path.
GUESSED = ((100_000_000, 0.001), (20_000_000, 0.01), (20_000_000, 0.1))
# Proposals whose slices are sized before they are compared again: that takes longer than all the
# rest.
FINALISTS = 3


class GroupChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, what of the vector each position owns, and what is to be said of it."""

    groups: Groups
    shares: tuple[float, ...]
    predicted_s: float | None
    reason: str
    after: GroupSizeHistory | None


class _Proposal(msgspec.Struct, frozen=True, kw_only=True):
    groups: Groups
    shares: tuple[float, ...]
    estimate: TimeEstimate

    def price(self, furthest: float) -> float:
        """Its time, and a little for how far it moves its bytes beside the proposal that moves them
        furthest.
        """
        return self.seconds * (1 + NEARNESS * self.estimate.distance / (furthest or 1.0))

    @property
    def size(self) -> int:
        return group_size(self.groups)

    @property
    def seconds(self) -> float:
        return self.estimate.seconds


def group_size(groups: Groups) -> int:
    return median([len(group) for group in groups])


def choose(
    view: NetworkSnapshot, bounds: GroupBounds, sizes: VectorSizes, before: GroupSizeHistory | None
) -> GroupChoice:
    """The layout of a round whose parent left `before`. Pure, and the same on every machine."""
    members = len(view.members)
    if not view.measured and before is not None:
        return _lost_sight(view, bounds, before)
    if not view.measured:
        return (
            _blind(view, even_groups(members, bounds.most), bounds)
            if members <= UNMEASURED
            else _guessed(view, bounds, sizes)
        )
    model, proposer = TimeModel(view, sizes), GroupProposer(view)
    fewest = -(-members // bounds.most)
    counts = _counts(fewest, max(fewest, members // bounds.least))
    kept = _nearest_count(members, before.size, fewest, counts[-1]) if before else None
    proposals = {
        count: _propose(model, proposer, count, bounds)
        for count in sorted({*counts, *([kept] if kept else [])})
    }
    furthest = max(one.estimate.distance for one in proposals.values())
    finalists = sorted(proposals, key=lambda count: (proposals[count].price(furthest), count))[
        :FINALISTS
    ]
    for count in {*finalists, *([kept] if kept else [])}:
        proposals[count] = _sized(model, proposals[count])
    best = min(proposals.values(), key=lambda one: (one.price(furthest), one.size))
    other = _contrast(best, proposals.values())
    if before is None or kept is None or best.size == proposals[kept].size:
        return _layout(best, _sentence(best, other), GroupSizeHistory(size=best.size))
    return _steady(before, proposals[kept], best, furthest)


def fixed(view: NetworkSnapshot, size: int, bounds: GroupBounds, sizes: VectorSizes) -> GroupChoice:
    """Rows of about `size` members whatever the model thinks: what an adaptive choice is compared
    with.

    Otherwise as `choose`.
    """
    members, proposer = len(view.members), GroupProposer(view)
    fewest = -(-members // bounds.most)
    count = _nearest_count(members, size, fewest, max(fewest, members // bounds.least))
    if not view.measured:
        return _blind(view, proposer.propose(count, bounds)[0], bounds)
    model = TimeModel(view, sizes)
    one = _sized(model, _propose(model, proposer, count, bounds))
    return _layout(one, f"{_shape(one.groups)}: the size is fixed", GroupSizeHistory(size=one.size))


def _steady(
    before: GroupSizeHistory, kept: _Proposal, best: _Proposal, furthest: float
) -> GroupChoice:
    """Whether it is time to leave the size of the last round."""
    gain = 1 - best.price(furthest) / kept.price(furthest)
    leaning = 1 if best.size > kept.size else -1
    times = min(before.times + 1 if leaning == before.leaning else 1, LATER)
    wanted = SOON if gain > MUCH else LATER
    if gain > LITTLE and times >= wanted:
        return _layout(best, _sentence(best, kept), GroupSizeHistory(size=best.size))
    if gain <= LITTLE:
        why = f"{_shape(kept.groups)} as before: {_shape(best.groups)} would take {best.seconds:.3g} s, this takes {kept.seconds:.3g} s"
        return _layout(kept, why, GroupSizeHistory(size=kept.size))
    why = (
        f"{_shape(kept.groups)} as before, {kept.seconds:.3g} s: {_shape(best.groups)} would take {best.seconds:.3g} s,"
        f" found {times} of {wanted} times"
    )
    return _layout(kept, why, GroupSizeHistory(size=kept.size, leaning=leaning, times=times))


def _blind(view: NetworkSnapshot, groups: Groups, bounds: GroupBounds) -> GroupChoice:
    """Before anything is measured: the given groups, slices by what members say of their links."""
    owners = list(zip(*groups, strict=False))
    ups = [_weakest([view.members[i].uplink_bps for i in each]) for each in owners]
    downs = [_weakest([view.members[i].downlink_bps for i in each]) for each in owners]
    reason = f"{_shape(groups)}: too little is measured to choose; {len(view.members)} were ready, max_group is {bounds.most}"
    return GroupChoice(
        groups=groups,
        shares=tuple(best_shares(ups, downs)),
        predicted_s=None,
        reason=reason,
        after=None,
    )


def _lost_sight(
    view: NetworkSnapshot, bounds: GroupBounds, before: GroupSizeHistory
) -> GroupChoice:
    """When what was measured contradicts itself, as after everything changed: the size stays,
    slices are equal.
    """
    members = len(view.members)
    fewest = -(-members // bounds.most)
    groups = GroupProposer(view).propose(
        _nearest_count(members, before.size, fewest, max(fewest, members // bounds.least)), bounds
    )[0]
    reason = f"{_shape(groups)} as before: what was measured contradicts itself"
    return GroupChoice(
        groups=groups, shares=_equal(groups), predicted_s=None, reason=reason, after=before
    )


def _guessed(view: NetworkSnapshot, bounds: GroupBounds, sizes: VectorSizes) -> GroupChoice:
    """Before anything is measured, among many: groups that are not far from the best on any of
    several networks that it may be.

    Nothing is predicted and nothing remembered. Rows that are too small for lossy paths take a
    multiple of the time, too large ones a part more anywhere.
    """
    members = len(view.members)
    if not any(member.at for member in view.members):
        return _blind(view, even_groups(members, bounds.most), bounds)
    proposer = GroupProposer(view)
    fewest = -(-members // bounds.most)
    most = max(fewest, members // bounds.least)
    counts = sorted(
        {fewest, *(1 << k for k in range(most.bit_length()) if fewest <= 1 << k <= most)}
    )
    proposed = [groups for count in counts for groups in proposer.propose(count, bounds)]
    regret = [1.0] * len(proposed)
    for bits, loss in GUESSED:
        guess = NetworkSnapshot(
            members=tuple(
                replace(member, uplink_bps=bits, downlink_bps=bits) for member in view.members
            ),
            flows=Flows(octaves=((1, product_of(loss)),)),
            failure_rate=0.0,
            measured=True,
        )
        model = TimeModel(guess, sizes)
        seconds = [model.estimate(groups, _equal(groups)).seconds for groups in proposed]
        regret = [
            max(worst, each / min(seconds)) for worst, each in zip(regret, seconds, strict=True)
        ]
    return _blind(view, proposed[regret.index(min(regret))], bounds)


def _weakest(bits: Sequence[int]) -> int:
    """Of what is known; 0 when nothing is."""
    return min((one for one in bits if one != UNKNOWN), default=UNKNOWN)


def _equal(groups: Groups) -> tuple[float, ...]:
    """Slices as large as each other."""
    positions = min(len(group) for group in groups)
    return (1 / positions,) * positions


def _propose(
    model: TimeModel, proposer: GroupProposer, count: int, bounds: GroupBounds
) -> _Proposal:
    """The better proposal of so many groups, with equal slices."""
    made = []
    for groups in proposer.propose(count, bounds):
        shares = _equal(groups)
        made.append(
            _Proposal(groups=groups, shares=shares, estimate=model.estimate(groups, shares))
        )
    return min(made, key=lambda one: one.seconds)


def _sized(model: TimeModel, proposal: _Proposal) -> _Proposal:
    """With slices that follow the weakest owner of each position, where that is faster."""
    shares = tuple(best_shares(*model.weakest(proposal.groups)))
    estimate = model.estimate(proposal.groups, shares)
    if estimate.seconds >= proposal.seconds:
        return proposal
    return _Proposal(groups=proposal.groups, shares=shares, estimate=estimate)


def _counts(fewest: int, most: int) -> list[int]:
    """Numbers of groups worth trying: all up to eight, then half as many again and twice as many, and
    so on.
    """
    counts, step = list(range(1, 9)), 8
    while counts[-1] < most:
        counts += [step + step // 2, 2 * step]
        step *= 2
    return sorted({fewest, most, *(count for count in counts if fewest <= count <= most)})


def _nearest_count(members: int, size: int, fewest: int, most: int) -> int:
    return min(max((2 * members + size) // (2 * size), fewest, 1), most)


def _contrast(best: _Proposal, proposals: Iterable[_Proposal]) -> _Proposal | None:
    """What the sentence compares with: what was faster but moves its bytes further, else the one
    group, else the fastest of another size.
    """
    others = [one for one in proposals if one.size != best.size]
    fastest = min(others, key=lambda one: one.seconds, default=None)
    alone = [one for one in others if len(one.groups) == 1]
    return (
        alone[0] if alone and fastest is not None and fastest.seconds >= best.seconds else fastest
    )


def _sentence(best: _Proposal, other: _Proposal | None) -> str:
    if other is None:
        return f"{_shape(best.groups)}: takes {best.seconds:.3g} s, nothing else is possible"
    if other.seconds < best.seconds:
        less = 100 * best.estimate.distance / (other.estimate.distance or 1)
        return f"{_shape(best.groups)}: {best.seconds:.3g} s, {_shape(other.groups)} {other.seconds:.3g} s, and {less:.0f}% of the bytes times distance"
    return f"{_shape(best.groups)}: {_shape(other.groups)} would take {other.seconds:.3g} s, this takes {best.seconds:.3g} s"


def _shape(groups: Groups) -> str:
    """As in "one row of 24", "3 rows of 8", "4 rows of 7 to 9"."""
    least, most = min(len(group) for group in groups), max(len(group) for group in groups)
    size = f"{least}" if least == most else f"{least} to {most}"
    return f"one row of {size}" if len(groups) == 1 else f"{len(groups)} rows of {size}"


def _layout(one: _Proposal, reason: str, after: GroupSizeHistory) -> GroupChoice:
    return GroupChoice(
        groups=one.groups, shares=one.shares, predicted_s=one.seconds, reason=reason, after=after
    )
