"""The exchange of a round, with tokens in place of bytes: slices, sums and results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol.averaging.group_layout import receivers
from protocol.digest import Digest, digest
from protocol.messages.round import Inclusion, Vote
from protocol.planning.plan import OpenPlan
from protocol.round import events as e

if TYPE_CHECKING:
    from tests.protocol.round.cluster import TestNode


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of one member's contribution."""

    plan: Digest
    slice: int
    contributor: int


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """One group's sum of one slice under one inclusion."""

    inclusion: Digest
    group: int
    slice: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The mean of one slice under one inclusion."""

    inclusion: Digest
    slice: int


class FakeExchange:
    """One node's part in the exchange of the current view."""

    def __init__(self, owner: TestNode) -> None:
        self._owner = owner
        self._plan: OpenPlan | None = None
        self._inclusion: Inclusion | None = None
        self._name: Digest = b""
        # Slices of later views stay here until this node reaches the view.
        self._slices: set[Slice] = set()
        self._sums: set[Sum] = set()
        self._results: set[Result] = set()
        self._passed: set[tuple[Result, int]] = set()
        self._reported: set[Result] = set()
        self._held: frozenset[int] = frozenset()
        self._computed = False

    def scatter(self, plan: OpenPlan) -> None:
        self._plan, self._inclusion, self._name, self._held = plan, None, b"", frozenset()
        for i in plan.layout.group_members(plan.index[self._owner.me]):
            self._send(i, i)
        self._advance()

    def reduce(self, inclusion: Inclusion, name: Digest) -> None:
        # Results overwrite the spare buffer.
        self._owner.spare = b""
        self._carry_out(inclusion, name, computed=False)

    def _carry_out(self, inclusion: Inclusion, name: Digest, *, computed: bool) -> None:
        assert self._plan is not None
        assert self._plan.digest == inclusion.plan
        self._inclusion, self._name, self._computed, self._reported = (
            inclusion,
            name,
            computed,
            set(),
        )
        me = self._plan.index[self._owner.me]
        if me in inclusion.contributors:
            for i in self._plan.layout.group_members(me):
                self._send(i, inclusion.owners[i])
        self._advance()

    def serve(self, inclusion: Inclusion, name: Digest) -> None:
        """Do as `reduce`, but keep the outcome that this node voted for."""
        self._carry_out(inclusion, name, computed=True)

    def abandon(self) -> None:
        self._plan = self._inclusion = None

    def forward_results(self, slices: tuple[int, ...], to: tuple[int, ...]) -> None:
        """Send results of other members to members that may lack them."""
        if self._plan is not None:
            for index in slices:
                result = Result(inclusion=self._name, slice=index)
                assert result in self._results, "forwards a result that has not arrived"
                for member in to:
                    self._owner.cluster.send(self._owner.me, self._plan.members[member], result)

    def lost(self) -> None:
        """A connection broke: this node forwards what the lost member would have forwarded."""
        self._advance()

    def receive(self, item: Slice | Sum | Result) -> None:
        """Receive a slice, a sum or a result."""
        match item:
            case Slice():
                self._slices.add(item)
            case Sum():
                self._sums.add(item)
            case Result():
                self._results.add(item)
        self._advance()

    def _send(self, index: int, owner: int) -> None:
        plan = self._plan
        assert plan is not None
        me = plan.index[self._owner.me]
        if plan.offers[me].samples and plan.layout.sums(index):
            item = Slice(plan=plan.digest, slice=index, contributor=me)
            if owner == me:
                self._slices.add(item)
            else:
                self._owner.cluster.send(self._owner.me, plan.members[owner], item)

    def _holds(self, index: int, contributor: int) -> bool:
        assert self._plan is not None
        return Slice(plan=self._plan.digest, slice=index, contributor=contributor) in self._slices

    def _advance(self) -> None:
        """Sum and forward what is complete, and report it to the machine."""
        plan = self._plan
        if plan is None:
            return
        size, me, inbox = len(plan.members), plan.index[self._owner.me], self._owner.inbox
        held = frozenset(c for c in range(size) if self._holds(me, c))
        if held != self._held:
            self._held = held
            inbox.append(e.ContributionsReceived(plan=plan.digest, contributors=held))
        inclusion = self._inclusion
        if inclusion is None:
            return
        self._sum_groups(plan, inclusion, me)
        wanted = {
            Result(inclusion=self._name, slice=i) for i in range(size) if plan.layout.finishes(i)
        }
        for result in sorted(wanted & self._results, key=lambda result: result.slice):
            for member in receivers(
                plan.layout,
                inclusion,
                result.slice,
                me,
                [i for i in range(size) if plan.members[i] in self._owner.lost],
            ):
                if (result, member) not in self._passed:
                    self._passed.add((result, member))
                    self._owner.cluster.send(self._owner.me, plan.members[member], result)
        for result in sorted(
            wanted & self._results - self._reported, key=lambda result: result.slice
        ):
            self._reported.add(result)
            inbox.append(e.ResultReceived(inclusion=self._name, slice=result.slice))
        if wanted <= self._results and not self._computed:
            self._computed = True
            self._owner.spare = digest(b"state", self._name)
            inbox.append(e.OutcomeComputed(vote=self._vote(plan)))

    def _sum_groups(self, plan: OpenPlan, inclusion: Inclusion, me: int) -> None:
        """Sum this node's slices, send the sums to their finishers, and finish complete slices."""
        layout, groups = plan.layout, plan.layout.groups_with(inclusion.contributors)
        mine = [i for i, owner in enumerate(inclusion.owners) if owner == me and layout.sums(i)]
        for i in mine:
            group = layout.group_of[i]
            if group in groups and all(
                self._holds(i, c) for c in inclusion.contributors if layout.group_of[c] == group
            ):
                for j in layout.counterparts[i]:
                    summed = Sum(inclusion=self._name, group=group, slice=j)
                    if summed not in self._sums:
                        self._sums.add(summed)
                        if inclusion.owners[j] != me:
                            self._owner.cluster.send(
                                self._owner.me, plan.members[inclusion.owners[j]], summed
                            )
        for i in mine:
            if layout.finishes(i) and all(
                Sum(inclusion=self._name, group=group, slice=i) in self._sums for group in groups
            ):
                self._results.add(Result(inclusion=self._name, slice=i))

    def _vote(self, plan: OpenPlan) -> Vote:
        return Vote(
            parents=(plan.plan.parent,),
            number=plan.plan.number,
            view=plan.plan.view,
            plan=plan.digest,
            inclusion=self._name,
            result=digest(b"result", self._name),
            state=self._owner.spare,
        )
