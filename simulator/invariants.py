"""What must always hold, checked in a world after every certificate that a node moves to.

Agreement: nodes that hold the same certificate hold identical anchors. Nothing lost: what a node was certified for, what its ledger holds and what it
dropped and said so add up to what its trainer handed over. Nothing twice: no (peer, seq) is twice in one ancestry, but where a merge joins branches.
"""

from __future__ import annotations

import msgspec

from protocol.digest import Digest
from protocol.identity import short
from protocol.outer import state_digest
from simulator.seat import Seat


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """An invariant that did not hold: which, when, and the sentence with its numbers."""

    invariant: str
    at_s: float
    what: str


class Invariants:
    """The checker of one world. `broken` is empty while all is well."""

    def __init__(self) -> None:
        self.broken: list[Violation] = []
        self._states: dict[Digest, Digest] = {}
        self._baseline: dict[tuple[int, int], int] = {}  # (node, life): what it had to account for besides its trainer's work
        self._dropped: dict[tuple[int, int], int] = {}

    def dropped(self, seat: Seat, samples: int) -> None:
        """The node said that it dropped work."""
        key = (seat.index, seat.life)
        self._dropped[key] = self._dropped.get(key, 0) + samples

    def moved(self, seat: Seat, now: float) -> None:
        """The node holds the anchor of its keeper's tip."""
        self._agreement(seat, now)
        self._nothing_twice(seat, now)
        self._nothing_lost(seat, now)

    def _fail(self, invariant: str, now: float, what: str) -> None:
        self.broken.append(Violation(invariant=invariant, at_s=now, what=what))

    def _agreement(self, seat: Seat, now: float) -> None:
        keeper = seat.engine.keeper if seat.engine else None
        if keeper is None:
            return
        state = state_digest(keeper.anchor.value, keeper.anchor.momentum)
        known = self._states.setdefault(keeper.tip.hash, state)
        if known != state:
            self._fail("agreement", now, f"node {seat.index} holds another anchor than others at certificate {keeper.tip.number}")

    def _nothing_twice(self, seat: Seat, now: float) -> None:
        keeper = seat.engine.keeper if seat.engine else None
        if keeper is None:
            return
        seen: set[tuple[str, int]] = set()
        path = keeper.lineage.path(keeper.lineage.root, keeper.tip)
        if any(len(certificate.outcome.parents) == 2 for certificate in path):
            return  # the documented exception: certified on both branches
        for certificate in path:
            for listed in certificate.listed.items():
                if listed in seen:
                    self._fail(
                        "nothing twice", now, f"seq {listed[1]} of {short(listed[0])} is twice in the ancestry of {keeper.tip.number}"
                    )
                seen.add(listed)

    def _nothing_lost(self, seat: Seat, now: float) -> None:
        engine, trainer = seat.engine, seat.trainer
        keeper = engine.keeper if engine else None
        if keeper is None or trainer is None:
            return
        key = (seat.index, seat.life)
        path = keeper.lineage.path(keeper.lineage.root, keeper.tip)
        if any(len(certificate.outcome.parents) == 2 for certificate in path):
            return  # work certified on both branches is settled once; the ledger cannot say which part
        certified = 0
        for certificate in path:
            index = certificate.plan.index.get(seat.peer)
            if index is not None and index in certificate.contributors:
                certified += certificate.plan.offers[index].samples
        accounted = certified + keeper.ledger.weight + self._dropped.get(key, 0)
        baseline = self._baseline.setdefault(key, accounted - trainer.collected)
        if accounted != baseline + trainer.collected:
            self._fail(
                "nothing lost",
                now,
                f"node {seat.index} handed over {trainer.collected} samples on top of {baseline}, and {accounted} are certified, pending or dropped",
            )
