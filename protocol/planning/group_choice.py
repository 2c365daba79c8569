"""Which rows a round gets, and why, in a sentence.

The fastest by the model, with three reservations. A little time is given up for moving bytes less
far: links between far peers are few, shared and paid for by somebody. The size of the last round is
kept unless another one was better by 15% in two rounds running, or by a little in three, so that
groups do not flap; that is what `History` remembers. And nothing is predicted, nor remembered,
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
from protocol.planning.group_proposals import Bounds, Cutting, Rows
from protocol.planning.history import LATER, SOON, History
from protocol.planning.time_model import Estimate, Model, Sizes

MUCH, LITTLE = (
    0.15,
    0.03,
    # Of the time with the last size: gains worth a change after two rounds and after three; less is
    # within the model's error.
)
# Of the time at most is given up for moving bytes less far, and all of it only for not moving them
# at all.
NEARNESS = 0.03
# Members at most whom one row holds well enough until something is measured, whatever the network.
UNMEASURED = 32
# Of a home's link, and the loss on every path.
GUESSED = ((100_000_000, 0.001), (20_000_000, 0.01), (20_000_000, 0.1))
# Proposals whose slices are sized before they are compared again: that takes longer than all the
# rest.
FINALISTS = 3


class GroupChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Rows, what of the vector each rank owns, and what is to be said of it."""

    rows: Rows
    shares: tuple[float, ...]
    predicted_s: float | None
    reason: str
    after: History | None


class _Proposal(msgspec.Struct, frozen=True, kw_only=True):
    rows: Rows
    shares: tuple[float, ...]
    estimate: Estimate

    def price(self, furthest: float) -> float:
        """Its time, and a little for how far it moves its bytes beside the proposal that moves them
        furthest.
        """
        return self.seconds * (1 + NEARNESS * self.estimate.distance / (furthest or 1.0))

    @property
    def size(self) -> int:
        return row_size(self.rows)

    @property
    def seconds(self) -> float:
        return self.estimate.seconds


def row_size(rows: Rows) -> int:
    return median([len(row) for row in rows])


def choose(
    view: NetworkSnapshot, bounds: Bounds, sizes: Sizes, before: History | None
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
    model, cutting = Model(view, sizes), Cutting(view)
    fewest = -(-members // bounds.most)
    counts = _counts(fewest, max(fewest, members // bounds.least))
    kept = _nearest_count(members, before.size, fewest, counts[-1]) if before else None
    proposals = {
        count: _propose(model, cutting, count, bounds)
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
        return _layout(best, _sentence(best, other), History(size=best.size))
    return _steady(before, proposals[kept], best, furthest)


def fixed(view: NetworkSnapshot, size: int, bounds: Bounds, sizes: Sizes) -> GroupChoice:
    """Rows of about `size` members whatever the model thinks: what an adaptive choice is compared
    with.

    Otherwise as `choose`.
    """
    members, cutting = len(view.members), Cutting(view)
    fewest = -(-members // bounds.most)
    count = _nearest_count(members, size, fewest, max(fewest, members // bounds.least))
    if not view.measured:
        return _blind(view, cutting.rows(count, bounds)[0], bounds)
    model = Model(view, sizes)
    one = _sized(model, _propose(model, cutting, count, bounds))
    return _layout(one, f"{_shape(one.rows)}: the size is fixed", History(size=one.size))


def _steady(before: History, kept: _Proposal, best: _Proposal, furthest: float) -> GroupChoice:
    """Whether it is time to leave the size of the last round."""
    gain = 1 - best.price(furthest) / kept.price(furthest)
    leaning = 1 if best.size > kept.size else -1
    times = min(before.times + 1 if leaning == before.leaning else 1, LATER)
    wanted = SOON if gain > MUCH else LATER
    if gain > LITTLE and times >= wanted:
        return _layout(best, _sentence(best, kept), History(size=best.size))
    if gain <= LITTLE:
        why = f"{_shape(kept.rows)} as before: {_shape(best.rows)} would take {best.seconds:.3g} s, this takes {kept.seconds:.3g} s"
        return _layout(kept, why, History(size=kept.size))
    why = (
        f"{_shape(kept.rows)} as before, {kept.seconds:.3g} s: {_shape(best.rows)} would take {best.seconds:.3g} s,"
        f" found {times} of {wanted} times"
    )
    return _layout(kept, why, History(size=kept.size, leaning=leaning, times=times))


def _blind(view: NetworkSnapshot, rows: Rows, bounds: Bounds) -> GroupChoice:
    """Before anything is measured: the given rows, slices by what members say of their links."""
    owners = list(zip(*rows, strict=False))
    ups = [_weakest([view.members[i].uplink_bps for i in each]) for each in owners]
    downs = [_weakest([view.members[i].downlink_bps for i in each]) for each in owners]
    reason = f"{_shape(rows)}: too little is measured to choose; {len(view.members)} were ready, max_group is {bounds.most}"
    return GroupChoice(
        rows=rows,
        shares=tuple(best_shares(ups, downs)),
        predicted_s=None,
        reason=reason,
        after=None,
    )


def _lost_sight(view: NetworkSnapshot, bounds: Bounds, before: History) -> GroupChoice:
    """When what was measured contradicts itself, as after everything changed: the size stays,
    slices are equal.
    """
    members = len(view.members)
    fewest = -(-members // bounds.most)
    rows = Cutting(view).rows(
        _nearest_count(members, before.size, fewest, max(fewest, members // bounds.least)), bounds
    )[0]
    reason = f"{_shape(rows)} as before: what was measured contradicts itself"
    return GroupChoice(
        rows=rows, shares=_equal(rows), predicted_s=None, reason=reason, after=before
    )


def _guessed(view: NetworkSnapshot, bounds: Bounds, sizes: Sizes) -> GroupChoice:
    """Before anything is measured, among many: rows that are not far from the best on any of
    several networks that it may be.

    Nothing is predicted and nothing remembered. Rows that are too small for lossy paths take a
    multiple of the time, too large ones a part more anywhere.
    """
    members = len(view.members)
    if not any(member.at for member in view.members):
        return _blind(view, even_groups(members, bounds.most), bounds)
    cutting = Cutting(view)
    fewest = -(-members // bounds.most)
    most = max(fewest, members // bounds.least)
    counts = sorted(
        {fewest, *(1 << k for k in range(most.bit_length()) if fewest <= 1 << k <= most)}
    )
    proposed = [rows for count in counts for rows in cutting.rows(count, bounds)]
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
        model = Model(guess, sizes)
        seconds = [model.estimate(rows, _equal(rows)).seconds for rows in proposed]
        regret = [
            max(worst, each / min(seconds)) for worst, each in zip(regret, seconds, strict=True)
        ]
    return _blind(view, proposed[regret.index(min(regret))], bounds)


def _weakest(bits: Sequence[int]) -> int:
    """Of what is known; 0 when nothing is."""
    return min((one for one in bits if one != UNKNOWN), default=UNKNOWN)


def _equal(rows: Rows) -> tuple[float, ...]:
    """Slices as large as each other."""
    ranks = min(len(row) for row in rows)
    return (1 / ranks,) * ranks


def _propose(model: Model, cutting: Cutting, count: int, bounds: Bounds) -> _Proposal:
    """The better proposal of so many rows, with equal slices."""
    made = []
    for rows in cutting.rows(count, bounds):
        shares = _equal(rows)
        made.append(_Proposal(rows=rows, shares=shares, estimate=model.estimate(rows, shares)))
    return min(made, key=lambda one: one.seconds)


def _sized(model: Model, proposal: _Proposal) -> _Proposal:
    """With slices that follow the weakest owner of each rank, where that is faster."""
    shares = tuple(best_shares(*model.weakest(proposal.rows)))
    estimate = model.estimate(proposal.rows, shares)
    if estimate.seconds >= proposal.seconds:
        return proposal
    return _Proposal(rows=proposal.rows, shares=shares, estimate=estimate)


def _counts(fewest: int, most: int) -> list[int]:
    """Numbers of rows worth trying: all up to eight, then half as many again and twice as many, and
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
    row, else the fastest of another size.
    """
    others = [one for one in proposals if one.size != best.size]
    fastest = min(others, key=lambda one: one.seconds, default=None)
    alone = [one for one in others if len(one.rows) == 1]
    return (
        alone[0] if alone and fastest is not None and fastest.seconds >= best.seconds else fastest
    )


def _sentence(best: _Proposal, other: _Proposal | None) -> str:
    if other is None:
        return f"{_shape(best.rows)}: takes {best.seconds:.3g} s, nothing else is possible"
    if other.seconds < best.seconds:
        less = 100 * best.estimate.distance / (other.estimate.distance or 1)
        return f"{_shape(best.rows)}: {best.seconds:.3g} s, {_shape(other.rows)} {other.seconds:.3g} s, and {less:.0f}% of the bytes times distance"
    return f"{_shape(best.rows)}: {_shape(other.rows)} would take {other.seconds:.3g} s, this takes {best.seconds:.3g} s"


def _shape(rows: Rows) -> str:
    """As in "one row of 24", "3 rows of 8", "4 rows of 7 to 9"."""
    least, most = min(len(row) for row in rows), max(len(row) for row in rows)
    size = f"{least}" if least == most else f"{least} to {most}"
    return f"one row of {size}" if len(rows) == 1 else f"{len(rows)} rows of {size}"


def _layout(one: _Proposal, reason: str, after: History) -> GroupChoice:
    return GroupChoice(
        rows=one.rows, shares=one.shares, predicted_s=one.seconds, reason=reason, after=after
    )
