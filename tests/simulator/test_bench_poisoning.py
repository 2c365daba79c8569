"""`hypergpud bench poisoning`: attackers are bounded, and without bounds they destroy the model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulator.bench.poisoning.attacks import ATTACKS
from simulator.bench.poisoning.benchmark import cases, table, withstood
from simulator.bench.poisoning.rounds import PoisonedRun, PoisoningCase, PoisoningRecord


def _record(case: PoisoningCase, loss: float | None) -> PoisoningRecord:
    return PoisoningRecord(case=case, loss=loss, weight_share=0.2, kept=0.001, honest_kept=1.0)


def test_cases_are_the_honest_run_and_each_number_of_attackers() -> None:
    made = cases(("noise", "zeros"), 2, unclipped=True)
    assert made[0] == PoisoningCase()
    assert [(case.attack, case.attackers, case.clip) for case in made[1:]] == [
        ("noise", 1, True),
        ("noise", 2, True),
        ("zeros", 1, True),
        ("zeros", 2, True),
        ("noise", 1, False),
        ("zeros", 1, False),
    ]


def test_a_loss_above_a_tenth_over_the_honest_one_fails() -> None:
    honest, evil = PoisoningCase(), PoisoningCase(attack="noise", attackers=1)
    unclipped = PoisoningCase(attack="noise", attackers=1, clip=False)
    assert withstood([_record(honest, 2.0), _record(evil, 2.2), _record(unclipped, None)])
    assert not withstood([_record(honest, 2.0), _record(evil, 2.21)])
    assert not withstood([_record(honest, 2.0), _record(evil, None)])
    assert not withstood([_record(honest, None)])
    assert "destroyed" in table([_record(honest, 2.0), _record(unclipped, None)])


@pytest.mark.parametrize("attack", ATTACKS)
def test_two_of_eight_attackers_move_the_first_rounds_by_a_bounded_length(attack: str) -> None:
    """Before a usual norm is known, the voters' median bounds all of them."""
    honest = PoisonedRun(PoisoningCase(), 8, 1)
    poisoned = PoisonedRun(PoisoningCase(attack=attack, attackers=2), 8, 1)
    before = honest.anchor.copy()
    record = poisoned.play(2)
    honest.play(2)
    moved = float(np.linalg.norm(poisoned.anchor - before))
    usual = float(np.linalg.norm(honest.anchor - before))
    assert record.loss is not None
    assert math.isfinite(record.loss)
    assert record.weight_share == pytest.approx(0.4)
    assert moved < 2.5 * usual


def test_one_attacker_without_weights_and_clip_destroys_the_model() -> None:
    record = PoisonedRun(PoisoningCase(attack="noise", attackers=1, clip=False), 8, 1).play(3)
    assert record.weight_share > 0.99
    assert record.loss is None or record.loss > 1000.0
