"""How the contributions of one plan are added up: their weights, and the clip where there is one.

Everything follows from the plan, the contributors that its leader included, and the version of the
rules. Before rules 4 a contribution weighs its samples and nothing is clipped.

With several groups, each group clips among its own contributions. The groups' means are clipped
once more among each other, as if each group were a voter: a group whose voters all lie is bounded
by the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from protocol.averaging.clip import RATIO, ClipPart, ClipScale, clip_ratio
from protocol.averaging.reduction import GROUP_CODEC
from protocol.averaging.vector_layout import Vector, chunk_count
from protocol.averaging.weights import TRUSTED_POLICIES, lower_median, weights_in
from protocol.codec import Codec, codec_named
from protocol.codec.wide_results import with_results_for
from protocol.digest import Buffer
from protocol.messages.round import TrustPlan
from protocol.messages.sum_terms import SumTerms
from protocol.rules.registry import rule_set

if TYPE_CHECKING:
    from protocol.planning.plan import OpenPlan


def terms_of(plan: OpenPlan) -> SumTerms | None:
    """Return the terms of a plan's sums; None before rules 4."""
    return plan.plan.terms if isinstance(plan.plan, TrustPlan) else None


def contributor_weights(plan: OpenPlan, contributors: Sequence[int]) -> tuple[int, ...]:
    """Return the weight of each contributor in the mean, in the order given."""
    terms = terms_of(plan)
    if terms is None:
        return tuple(plan.offers[i].samples for i in contributors)
    return weights_in(terms.weights, terms.newcomers, contributors, plan.policy)


def share_of(plan: OpenPlan, contributors: Sequence[int], index: int) -> float:
    """Return the share of contributor `index` in the weight of the mean, from 0 to 1."""
    weights = dict(zip(contributors, contributor_weights(plan, contributors), strict=True))
    return weights[index] / max(1, sum(weights.values()))


def codec_of(plan: OpenPlan, codec: Codec) -> Codec:
    """Return the run's codec as a plan uses it: its means may travel with more bits.

    The plan's expected contributors decide, so that the size of a result never depends on who is
    lost.
    """
    if terms_of(plan) is None:
        return codec
    return with_results_for(codec, sum(1 for offer in plan.offers if offer.samples))


class ClipTally:
    """How much of each contribution the clip left, in the chunks that one node summed."""

    def __init__(self) -> None:
        # By member: the sum of its factors. All members have the same number of chunks.
        self._kept: dict[int, float] = {}
        self._chunks: dict[int, int] = {}

    def add(self, members: Sequence[int], kept: Sequence[float], chunks: int) -> None:
        """Add one sum: each member's factors over `chunks` chunks."""
        for member, share in zip(members, kept, strict=True):
            self._kept[member] = self._kept.get(member, 0.0) + share
            self._chunks[member] = self._chunks.get(member, 0) + chunks

    def shares(self) -> dict[int, float]:
        """Return the mean factor of each member, 1.0 where nothing was clipped."""
        return {member: self._kept[member] / chunks for member, chunks in self._chunks.items()}


class PlanSum:
    """The sums of one plan, under one set of contributors.

    It makes the same bytes on every node. The sums of a plan before rules 4 are those of
    `reduction.py`.
    """

    def __init__(self, plan: OpenPlan, contributors: Iterable[int], parameters: int) -> None:
        """`parameters` is the size of the run's model."""
        self._rules, self._layout, self._parameters = rule_set(plan.rules), plan.layout, parameters
        self._terms = terms_of(plan)
        self._trusting = plan.policy in TRUSTED_POLICIES
        included = tuple(contributors)
        self.weights: Mapping[int, int] = dict(
            zip(included, contributor_weights(plan, included), strict=True)
        )
        self.group_weights: Mapping[int, int] = {
            group: sum(
                weight
                for member, weight in self.weights.items()
                if self._layout.group_of[member] == group
            )
            for group in self._layout.groups_with(included)
        }

    def mean(
        self,
        parts: Iterable[tuple[int, Buffer]],
        codec: Codec,
        out: Vector,
        tally: ClipTally | None = None,
    ) -> int:
        """Compute the mean of contributions of one group.

        Args:
            parts: (member, encoding of exactly `out.size` elements), in the order of the members.
            codec: the codec of the parts.
            out: receives the float32 mean, shape (elements of whole chunks, or up to the end,).
            tally: notes what the clip left.

        Returns:
            The included weight.

        Raises:
            PeerFault: an encoding does not decode.
        """
        given = list(parts)
        if self._terms is None:
            weighted = [(self.weights[member], data) for member, data in given]
            return self._rules.weighted_mean(weighted, codec, out)
        voters, median = self._terms.voters, self._terms.median
        clipped = [
            ClipPart(
                weight=self.weights[member],
                data=data,
                votes=member in voters,
                ratio=clip_ratio(self.weights[member], median, trusting=self._trusting),
            )
            for member, data in given
        ]
        return self._clipped(clipped, [member for member, _ in given], codec, out, tally)

    def mean_of_groups(
        self, means: Sequence[tuple[int, Buffer]], out: Vector, tally: ClipTally | None = None
    ) -> int:
        """Compute the mean over all groups.

        Args:
            means: (group, its mean as little-endian float32) of each group that includes anyone, in
                the order of the groups.
            out: receives the mean.
            tally: notes what the clip left of the groups' means, by group.

        Returns:
            The included weight.
        """
        codec = codec_named(GROUP_CODEC)
        weights = [self.group_weights[group] for group, _ in means]
        if self._terms is None:
            weighted = [(weight, data) for weight, (_, data) in zip(weights, means, strict=True)]
            return self._rules.weighted_mean(weighted, codec, out)
        usual = lower_median(weights) if weights else 1
        clipped = [
            ClipPart(
                weight=weight,
                data=data,
                votes=True,
                # A group may weigh more than another because it has more members.
                ratio=clip_ratio(weight, usual, trusting=True) if self._trusting else RATIO,
            )
            for weight, (_, data) in zip(weights, means, strict=True)
        ]
        groups = [group for group, _ in means] if tally is not None else ()
        return self._clipped(clipped, groups, codec, out, tally)

    def mean_by_plan(
        self,
        parts: Mapping[int, Buffer],
        codec: Codec,
        out: Vector,
        tally: ClipTally | None = None,
        groups_tally: ClipTally | None = None,
    ) -> int:
        """Compute what all reducers of the plan compute together, to check them.

        Args:
            parts: the encoding of each contributor, by member.
            codec: the codec of the parts.
            out: receives the mean.
            tally: notes what the clip left of the contributions within their groups.
            groups_tally: notes what it left of the groups' means.

        Returns:
            The included weight.
        """
        if len(self._layout.groups) == 1:
            return self.mean([(i, parts[i]) for i in sorted(parts)], codec, out, tally)
        means: list[tuple[int, Buffer]] = []
        for group in self.group_weights:
            mean = np.empty(out.size, np.float32)
            members = [i for i in sorted(parts) if self._layout.group_of[i] == group]
            self.mean([(i, parts[i]) for i in members], codec, mean, tally)
            means.append((group, mean.astype("<f4").tobytes()))
        return self.mean_of_groups(means, out, groups_tally)

    def loss_weight(self, total: int, claimed: int, member: int) -> int:
        """Return by what a reducer multiplies what encoding the mean lost, for its own ledger.

        The loss of the mean counts with the weight of all. Where caps reduce the reducer's own
        weight below its samples, what it offers counts less, so the loss counts more.

        Args:
            total: the weight of the mean.
            claimed: the reducer's own samples.
            member: the reducer.
        """
        weight = self.weights.get(member, 0)
        return total * claimed // weight if 0 < weight < claimed else total

    def _clipped(
        self,
        parts: Sequence[ClipPart],
        members: Sequence[int],
        codec: Codec,
        out: Vector,
        tally: ClipTally | None,
    ) -> int:
        assert self._terms is not None, "before rules 4 nothing is clipped"
        total = sum(part.weight for part in parts)
        if not total:
            return self._rules.weighted_mean([(0, part.data) for part in parts], codec, out)
        scale = ClipScale(norm=self._terms.norm, parameters=self._parameters)
        kept = self._rules.clipped_mean(parts, scale, codec, out)
        if tally is not None:
            tally.add(members, kept.tolist(), chunk_count(out.size))
        return total


class StepTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the outer step after a mean needs to know of its plan."""

    # The rounds of training behind the mean.
    rounds: float
    # The usual L2 norm of the mean; 0.0 where it is not known, None where steps have no limit.
    usual: float | None


def step_terms(plan: OpenPlan, contributors: Iterable[int]) -> StepTerms:
    """Return the terms of the outer step of a plan under one set of contributors."""
    included, terms = tuple(contributors), terms_of(plan)
    return StepTerms(
        rounds=rule_set(plan.rules).rounds_in(
            (plan.offers[i] for i in included), contributor_weights(plan, included)
        ),
        usual=None if terms is None else terms.norm,
    )
