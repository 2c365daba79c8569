"""Rounds of a few members in this process, each contribution of which is audited once.

Members train with the worker's own loop, and offer what their ledgers make of it: with what their
encodings lost before, with steps of the exchange, and with the work of rounds that they missed.
Each contribution is scored as a voter scores it (`protocol/audit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from protocol.audit.history import AuditHistory
from protocol.audit.reference import ReferenceFit
from protocol.audit.samples import (
    NAMED_SHARE,
    AuditGroups,
    DrawnStretch,
    audit_groups,
    drawn_stretch,
    named_total,
)
from protocol.audit.score import NO_WORK, score_of
from protocol.averaging.outer_step import outer_step
from protocol.averaging.vector_layout import Vector
from protocol.averaging.weights import claimed_weight, lower_median, weights_in
from protocol.certificates.tip import genesis
from protocol.codec import codec_named
from protocol.digest import digest
from protocol.run.initial_parameters import initial_parameters
from simulator.bench.audits.cases import AuditCase
from simulator.bench.audits.members import SEED, Member
from simulator.bench.audits.works import HONEST, POISON, WORKS, Situation, poison

# Elements of a contribution that are fetched or left out together, where only a part is fetched.
# A chunk has more; a shipped model for this measurement has few chunks.
PART = 512
# A member's steps vary by this share from round to round.
JITTER = 0.1
# The offers of each member that a cheat may send again.
KEPT_OFFERS = 3


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """One audit of a member, and the verdict that stands after it (`AuditHistory.add`)."""

    member: int
    kind: str
    score: float
    favours: bool | None


class Swarm:
    """The members of one case, with their anchor and what they offered before."""

    def __init__(self, case: AuditCase, seed: int = SEED) -> None:
        self._case = case
        self._codec = codec_named(case.codec)
        self.members = [Member(case, number) for number in range(len(case.speeds))]
        loop = self.members[0].loop
        self._trained = loop.split.trained
        self.anchor: Vector = initial_parameters(loop.specs, SEED)
        self._momentum = np.zeros_like(self.anchor)
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._tip = genesis(digest(b"bench audits"))
        # The tips that offers may name, by hash.
        self._tips = {self._tip.hash: self._tip}
        self._before: dict[int, list[Vector]] = {}
        self._mean: Vector | None = None
        # By (kind, member): one voter's scores.
        self._histories: dict[tuple[str, int], AuditHistory] = {}

    def round(self, kinds: Sequence[str]) -> list[Audit]:
        """Play a round, and audit each listed contribution as each of these kinds of work."""
        case = self._case
        for member, speed in zip(self.members, case.speeds, strict=True):
            if self._rng.random() < case.restarts:
                member.restart()
            usual = case.steps * speed
            steps = round(usual * (1 + JITTER * self._rng.uniform(-1, 1)))
            member.train(self._tip, self.anchor, max(1, steps))
        listed = [i for i, _ in enumerate(self.members) if self._rng.random() >= case.misses]
        listed = listed if len(listed) > 1 else [*range(len(self.members))]
        sent = {i: self._sent(i) for i in range(len(self.members))}
        named = {i: self._named(i) for i in listed}
        offers = self._poisoned({i: sent[i] for i in listed})
        weights = self._weights(listed)
        audits: list[Audit] = []
        for i in listed:
            audits += self._audited(i, offers, weights, named, kinds)
        mean = self._reduced(offers, weights)
        for member, speed in zip(self.members, case.speeds, strict=True):
            steps = round(case.exchange_steps * speed)
            if steps:
                member.train(self._tip, self.anchor, steps, exchanges=True)
        self._adopt(mean, listed)
        for i in listed:
            self._before[i] = [*self._before.get(i, []), offers[i]][-KEPT_OFFERS:]
        self._mean = mean
        return audits

    def _poisoned(self, offers: dict[int, Vector]) -> dict[int, Vector]:
        """Return the offers with those of poisoners, who see the others' work first."""
        honest = [offer for i, offer in offers.items() if not self._poisons(i)]
        return {
            i: poison(offer, honest) if honest and self._poisons(i) else offer
            for i, offer in offers.items()
        }

    def _poisons(self, number: int) -> bool:
        return number >= len(self.members) - self._case.poisoners

    def _sent(self, number: int) -> Vector:
        """Return a member's offer as it arrives: encoded and decoded."""
        ledger = self.members[number].ledger
        offer = ledger.make_offer()
        ledger.mark_sent()
        out = np.empty_like(self.anchor)
        self._codec.decode(offer.encoded, out)
        return out

    def _named(self, number: int) -> list[DrawnStretch]:
        member = self.members[number]
        return [
            drawn_stretch(self._tips[stretch.tip], member.peer, stretch)
            for stretch in member.ledger.data.named
        ]

    def _weights(self, listed: Sequence[int]) -> dict[int, int]:
        samples = [self.members[i].ledger.offer.weight for i in listed]
        median, policy = lower_median(samples), self._case.policy
        claimed = [claimed_weight(one, median, None, policy) for one in samples]
        weights = weights_in(claimed, (), range(len(listed)), policy)
        return dict(zip(listed, weights, strict=True))

    def _reduced(self, offers: Mapping[int, Vector], weights: Mapping[int, int]) -> Vector:
        """Return the mean as it arrives. Each member is credited for what its slice lost."""
        mean = _mean(offers, weights)
        wire, out = self._codec.result, np.empty_like(mean)
        wire.decode(wire.encode(mean), out)
        slices = np.linspace(0, mean.size, len(offers) + 1).astype(int)
        total = np.float32(sum(weights.values()))
        for i, first, stop in zip(offers, slices, slices[1:], strict=False):
            lost = (mean[first:stop] - out[first:stop]) * total
            self.members[i].ledger.credit(int(first), lost)
        return out

    def _adopt(self, mean: Vector, listed: Sequence[int]) -> None:
        """Make the outer step, and the next tip."""
        after = np.empty_like(mean), np.empty_like(mean)
        outer_step(self.anchor, self._momentum, mean, self._case.outer, *after)
        self.anchor, self._momentum = after
        tip, most = self._tip, max(member.ledger.drawn for member in self.members)
        weight = sum(self.members[i].ledger.offer.weight for i in listed)
        for i, member in enumerate(self.members):
            member.settle(listed=i in listed)
        members = tuple(sorted(self.members[i].peer for i in listed))
        self._tip = replace(
            tip,
            hash=digest(tip.hash),
            number=tip.number + 1,
            members=members,
            samples=tip.samples + weight,
            lane_base=tip.behind_reserve + most * tip.stride,
            reserve=round(2 * max(self._case.speeds) * self._case.exchange_steps)
            * self._case.inner.batch_size,
        )
        self._tips[self._tip.hash] = self._tip

    # ---------------------------------------------------------------- audits

    def _audited(
        self,
        number: int,
        offers: Mapping[int, Vector],
        weights: Mapping[int, int],
        named: Mapping[int, list[DrawnStretch]],
        kinds: Sequence[str],
    ) -> list[Audit]:
        """Audit one contribution as each kind of work that member `number` may have offered."""
        own, samples = named[number], self.members[number].ledger.offer.weight
        true = POISON if self._poisons(number) else HONEST
        if named_total(own) * NAMED_SHARE < samples:
            return [self._judged(true, number, NO_WORK)]
        others = [stretch for i, each in named.items() if i != number for stretch in each]
        groups = audit_groups(own, others, seed=SEED, trained=self._trained, rng=self._rng)
        if groups is None:
            return []
        works = {true: offers[number]} if HONEST in kinds else {}
        if self._mean is not None and number in self._before and true == HONEST:
            rest = [offer for i, offer in offers.items() if i != number]
            known = Situation(
                own=offers[number],
                others=rest,
                before=self._before[number],
                mean=self._mean,
                partial=lambda share: self._partial(number, share),
                rng=self._rng,
            )
            works |= {kind: WORKS[kind](known) for kind in kinds if kind != HONEST}
        parts = -(-self.anchor.size // PART)
        seen = np.repeat(self._rng.random(parts) < self._case.fetched, PART)[: self.anchor.size]
        scores = {
            kind: self._score(number, {**offers, number: work}, weights, groups, seen)
            for kind, work in works.items()
        }
        return [
            self._judged(kind, number, score) for kind, score in scores.items() if score is not None
        ]

    def _partial(self, number: int, share: float) -> Vector:
        """Return the encoded work of a share of the round's steps."""
        member = self.members[number]
        steps = max(1, round(self._case.steps * self._case.speeds[number] * share))
        lane = self._tip.lane(member.peer)
        made = member.displacement(self.anchor, lane, steps, self._tip.samples)
        out = np.empty_like(made)
        self._codec.decode(self._codec.encode(made), out)
        return out

    def _score(
        self,
        number: int,
        offers: Mapping[int, Vector],
        weights: Mapping[int, int],
        groups: AuditGroups,
        seen: np.ndarray,
    ) -> float | None:
        """Return the score that another member gives; None where nothing is comparable."""
        work = offers[number]
        if not work.any():
            return 0.0
        wire, mean = self._codec.result, np.empty_like(work)
        wire.decode(wire.encode(_mean(offers, weights)), mean)
        voters = [i for i in offers if i != number and not self._poisons(i)]
        mine = offers[voters[-1]] if voters else None
        fit, share = ReferenceFit(), weights[number] / sum(weights.values())
        fit.add(work[seen], mean[seen], None if mine is None else mine[seen])
        found = fit.nearest(share)
        if found is None:
            return None
        source = mine if found.is_mine and mine is not None else mean
        auditor, half = self.members[0], len(groups.own)
        positions = np.concatenate([groups.own, groups.others])
        by_reference, by_work = (
            auditor.losses(self.anchor - np.where(seen, vector, np.float32(0)), positions)
            for vector in (np.float32(found.scale) * source, work)
        )
        advantages = (by_reference - by_work).tolist()
        return score_of(advantages[:half], advantages[half:])

    def _judged(self, kind: str, number: int, score: float) -> Audit:
        peer = self.members[number].peer
        history = self._histories.setdefault((kind, number), AuditHistory())
        return Audit(member=number, kind=kind, score=score, favours=history.add(peer, score))


def _mean(offers: Mapping[int, Vector], weights: Mapping[int, int]) -> Vector:
    """Return the weighted mean of the offers, shape (parameters,)."""
    mean: Vector = np.average(
        np.stack(list(offers.values())), axis=0, weights=[weights[i] for i in offers]
    ).astype(np.float32)
    return mean
