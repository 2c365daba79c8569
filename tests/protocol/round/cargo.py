"""The bytes of a round as tokens: who holds which slice of whose contribution, and which results. What an `Exchange` does, without arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol.digest import Digest, digest
from protocol.messages import Cut, Vote
from protocol.plan import OpenPlan
from protocol.round import phases as p

if TYPE_CHECKING:
    from tests.protocol.round.village import Villager


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of one member's contribution."""

    plan: Digest
    slice: int
    contributor: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One slice's mean under one cut."""

    cut: Digest
    slice: int


class Cargo:
    """One villager's part in the exchange of the current view."""

    def __init__(self, owner: Villager) -> None:
        self._owner = owner
        self._plan: OpenPlan | None = None
        self._cut: Cut | None = None
        self._name: Digest = b""
        self._slices: set[Slice] = set()  # also early ones: their sender is kept waiting
        self._results: set[Result] = set()
        self._told: set[Result] = set()
        self._held: frozenset[int] = frozenset()
        self._computed = False

    def scatter(self, plan: OpenPlan) -> None:
        self._plan, self._cut, self._name, self._held = plan, None, b"", frozenset()
        for i in range(len(plan.members)):
            self._send(i, i)
        self._advance()

    def reduce(self, cut: Cut, name: Digest) -> None:
        assert self._plan is not None
        assert self._plan.digest == cut.plan
        self._cut, self._name, self._computed, self._told = cut, name, False, set()
        self._owner.spare = b""  # results are written over what was there
        if self._plan.index[self._owner.me] in cut.contributors:
            for i, owner in enumerate(cut.owners):
                self._send(i, owner)
        self._advance()

    def abandon(self) -> None:
        self._plan = self._cut = None

    def take(self, item: Slice | Result) -> None:
        """Something arrived."""
        if isinstance(item, Slice):
            self._slices.add(item)
        else:
            self._results.add(item)
        self._advance()

    def _send(self, index: int, owner: int) -> None:
        plan = self._plan
        assert plan is not None
        me = plan.index[self._owner.me]
        if plan.offers[me].samples and not self._is_empty(index):
            item = Slice(plan=plan.digest, slice=index, contributor=me)
            if owner == me:
                self._slices.add(item)
            else:
                self._owner.village.post(self._owner.me, plan.members[owner], item)

    def _is_empty(self, index: int) -> bool:
        assert self._plan is not None
        borders = self._plan.plan.borders
        return borders[index] == borders[index + 1]

    def _holds(self, index: int, contributor: int) -> bool:
        assert self._plan is not None
        return Slice(plan=self._plan.digest, slice=index, contributor=contributor) in self._slices

    def _advance(self) -> None:
        """Tell the machine what came of it all."""
        plan = self._plan
        if plan is None:
            return
        size, me, inbox = len(plan.members), plan.index[self._owner.me], self._owner.inbox
        held = frozenset(c for c in range(size) if self._holds(me, c))
        if held != self._held:
            self._held = held
            inbox.append(p.HeldHere(plan=plan.digest, contributors=held))
        cut = self._cut
        if cut is None:
            return
        for i, owner in enumerate(cut.owners):
            mine = Result(cut=self._name, slice=i)
            if owner == me and mine not in self._results and not self._is_empty(i) and all(self._holds(i, c) for c in cut.contributors):
                self._results.add(mine)
                for member in cut.present:
                    if member != me:
                        self._owner.village.post(self._owner.me, plan.members[member], mine)
        wanted = {Result(cut=self._name, slice=i) for i in range(size) if not self._is_empty(i)}
        for result in sorted(wanted & self._results - self._told, key=lambda result: result.slice):
            self._told.add(result)
            inbox.append(p.ResultGot(cut=self._name, slice=result.slice))
        if wanted <= self._results and not self._computed:
            self._computed = True
            self._owner.spare = digest(b"state", self._name)
            inbox.append(p.Computed(vote=self._vote(plan)))

    def _vote(self, plan: OpenPlan) -> Vote:
        return Vote(
            parents=(plan.plan.parent,),
            number=plan.plan.number,
            view=plan.plan.view,
            plan=plan.digest,
            cut=self._name,
            result=digest(b"result", self._name),
            state=self._owner.spare,
        )
