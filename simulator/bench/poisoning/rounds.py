"""Rounds of a run with attackers, by the functions that members of a run use.

Everything happens in one process without messages: the members' contributions are encoded, summed
by the terms of a plan, limited and stepped as `protocol/averaging` does it.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from protocol.averaging.outer_step import outer_step
from protocol.averaging.plan_sum import ClipTally, PlanSum, step_terms
from protocol.averaging.plan_terms import plan_terms
from protocol.averaging.replay import limited
from protocol.averaging.vector_layout import Vector, chunk_count
from protocol.codec import codec_named
from protocol.digest import digest
from protocol.identity import Signer
from protocol.messages.base import Signed
from protocol.messages.offer import Ready
from protocol.messages.round import PacedPlan, TrustPlan
from protocol.messages.sum_terms import SumTerms
from protocol.planning.plan import OpenPlan
from protocol.rules.versions import CURRENT_RULES, RULES_4
from protocol.run.manifest import Outer
from simulator.bench.poisoning.attacks import ATTACKS, MOST_SAMPLES
from simulator.bench.poisoning.model import SEED, Members

ROUND_S = 20.0
OUTER = Outer(learning_rate=0.7, momentum=0.9)
CODEC = "int8"


class PoisoningCase(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Without an attack all members are honest; without `clip` it has rules 3.

    The attackers work honestly before round `begins`, counted from 0.
    """

    attack: str = ""
    attackers: int = 0
    clip: bool = True
    begins: int = 0


class PoisoningRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. A loss is None where the model holds no numbers any more."""

    case: PoisoningCase
    loss: float | None
    # The mean share of the attackers in the weight, and what the clip left of their work.
    weight_share: float
    kept: float
    # What the clip left of the honest members' work.
    honest_kept: float


class PoisonedRun:
    """One run from its first round to its last."""

    def __init__(self, case: PoisoningCase, count: int, steps: int) -> None:
        self._case, self._count = case, count
        self._members = Members(count, steps)
        self.anchor = self._members.first_anchor()
        self._momentum = np.zeros_like(self.anchor)
        self._codec = codec_named(CODEC)
        self._peers = sorted(Signer(bytes([i + 1]) * 32).peer for i in range(count))
        self._weights: list[list[tuple[int, float]]] = [[] for _ in range(count)]
        self._norms: list[float] = []
        self._shares: list[float] = []
        self._kept: list[dict[int, float]] = []

    def play(self, rounds: int) -> PoisoningRecord:
        """Play the rounds, up to one whose work is no number any more."""
        loss = math.inf
        for number in range(rounds):
            if not self._round(number):
                break
        else:
            loss = self._members.loss(self.anchor)
        evil = range(self._case.attackers)
        return PoisoningRecord(
            case=self._case,
            loss=loss if math.isfinite(loss) else None,
            weight_share=float(np.mean(self._shares)),
            kept=self._mean_kept(evil),
            honest_kept=self._mean_kept(range(self._case.attackers, self._count)),
        )

    def _mean_kept(self, members: range) -> float:
        shares = [kept[i] for kept in self._kept for i in members if i in kept]
        return float(np.mean(shares)) if shares else 1.0

    def _round(self, number: int) -> bool:
        """Play one round. Returns whether the members still train numbers."""
        case, everyone = self._case, range(self._count)
        work = [self._members.work(i, self.anchor, number) for i in everyone]
        if not all(np.isfinite(one).all() for one in work):
            return False
        samples = [self._members.samples] * self._count
        honest = work[case.attackers :]
        for i in range(case.attackers if number >= case.begins else 0):
            work[i] = ATTACKS[case.attack](work[i], honest, np.random.default_rng(SEED))
            samples[i] = MOST_SAMPLES
        plan = self._plan(samples)
        parts = {i: self._codec.encode(one) for i, one in enumerate(work)}
        mean, tally = np.empty_like(self.anchor), ClipTally()
        sums = PlanSum(plan, everyone, self.anchor.size)
        sums.mean_by_plan(parts, self._codec, mean, tally)
        self._codec.decode(self._codec.encode(mean), mean)
        self._step(mean, plan)
        evil = sum(sums.weights[i] for i in range(case.attackers))
        self._shares.append(evil / sum(sums.weights.values()))
        self._kept.append(tally.shares())
        for i, weight in sums.weights.items():
            self._weights[i].append((weight, ROUND_S))
        return True

    def _step(self, mean: Vector, plan: OpenPlan) -> None:
        terms = step_terms(plan, range(self._count))
        factor, norm = limited(
            lambda start, out: mean[start : start + out.size], mean.size, terms.usual
        )
        self._norms.append(norm / ROUND_S)
        after = np.empty_like(mean), np.empty_like(mean)
        with np.errstate(over="ignore", invalid="ignore"):
            outer_step(
                self.anchor, self._momentum, mean * np.float32(factor), OUTER, *after, rounds=1.0
            )
        self.anchor, self._momentum = after

    def _plan(self, samples: list[int]) -> OpenPlan:
        offers = tuple(
            Ready(
                parent=digest(b"poisoning"),
                view=0,
                number=1,
                seq=1,
                samples=one,
                contribution=digest(b"poisoning"),
                loss=None,
                fingerprint=digest(b"poisoning"),
                uplink_bps=0,
                downlink_bps=0,
            )
            for one in samples
        )
        terms = plan_terms(
            samples, range(self._count), (), self._weights, self._norms, ROUND_S, "open"
        )
        made = self._message(terms if self._case.clip else None)
        return OpenPlan(
            plan=made,
            digest=digest(b"poisoning"),
            leader=self._peers[0],
            members=tuple(self._peers),
            offers=offers,
            rules=RULES_4 if self._case.clip else CURRENT_RULES,
        )

    def _message(self, terms: SumTerms | None) -> PacedPlan:
        chunks = chunk_count(self.anchor.size)
        plan = PacedPlan(
            parent=digest(b"poisoning"),
            view=0,
            number=1,
            offers=tuple(Signed(b"", peer, b"") for peer in self._peers),
            borders=(0, *[chunks] * self._count),
            groups=(tuple(range(self._count)),),
            reason="",
            round_s=ROUND_S,
        )
        if terms is None:
            return plan
        fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
        return TrustPlan(**fields, terms=terms)
