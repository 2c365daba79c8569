"""hivemind under fault: the judgment of what survivors hold, and one real fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trio

from daemon.services.training.hivemind.messages import (
    CommandFailed,
    HivemindReport,
    MemberInfo,
    VectorAveraged,
)
from protocol.averaging.vector_layout import Vector
from simulator.harness.content import samples_of, vector_of
from simulator.harness.hivemind_member import MOMENT_OF
from simulator.harness.hivemind_trial import (
    HivemindCohort,
    HivemindTrialResult,
    bench_settings,
    hivemind_cohort,
)
from simulator.harness.steps import STEPS

ELEMENTS = 1000
GIVEN = [vector_of(20, index, 0, 1, ELEMENTS) for index in range(4)]
SURVIVORS = [0, 1, 3]


def mean_of(*members: int) -> Vector:
    weights = [samples_of(index) for index in members]
    summed = sum(
        weight * GIVEN[index].astype(np.float64)
        for weight, index in zip(weights, members, strict=True)
    )
    return (summed / sum(weights)).astype(np.float32)


def success(*members: int, local_elements: int = 0) -> VectorAveraged:
    return VectorAveraged(
        id=1,
        group=len(members),
        members=tuple(
            MemberInfo(peer=str(index), number=1, samples=samples_of(index), loss=None, sketch=())
            for index in members
        ),
        elements=ELEMENTS,
        local_elements=local_elements,
        missing_senders=0,
        parts_expected=4,
        parts_summed=4,
        matchmaking_s=0.1,
        all_reduce_s=0.2,
    )


def judged(answers: dict[int, HivemindReport], held: dict[int, Vector]) -> HivemindTrialResult:
    cohort = HivemindCohort([], Path(), ELEMENTS, 20)
    return cohort._judge(
        SURVIVORS, [answers.get(index) for index in range(4)], GIVEN, held, 5.0, 0.0
    )


def test_judge_accepts_the_exact_mean_of_the_reported_members() -> None:
    for members in ((0, 1, 2, 3), (0, 1, 3)):
        rounding = np.float32(1e-7)
        trial = judged(
            dict.fromkeys(SURVIVORS, success(*members)),
            {index: mean_of(*members) + rounding * index for index in SURVIVORS},
        )
        assert trial.agree
        assert trial.exact
        assert trial.false_successes == 0


def test_judge_finds_own_values_in_a_reported_success() -> None:
    held = {index: mean_of(0, 1, 2, 3) for index in SURVIVORS}
    held[1] = held[1].copy()
    held[1][:250] = GIVEN[1][:250]
    answers = {
        0: success(0, 1, 2, 3),
        1: success(0, 1, 2, 3, local_elements=250),
        3: success(0, 1, 2, 3),
    }
    trial = judged(answers, held)
    assert not trial.agree
    assert not trial.exact
    assert (trial.successes, trial.false_successes, trial.seen_false) == (3, 1, 1)
    assert "25% its own values" in trial.notes[0]


def test_judge_finds_a_mean_that_lacks_a_reported_member() -> None:
    trial = judged(
        dict.fromkeys(SURVIVORS, success(0, 1, 2, 3)),
        {index: mean_of(0, 1, 3) for index in SURVIVORS},
    )
    assert trial.agree
    assert trial.false_successes == 3
    assert trial.seen_false == 0


def test_judge_calls_a_failure_of_all_agreement() -> None:
    answers: dict[int, HivemindReport] = dict.fromkeys(SURVIVORS, CommandFailed(id=1, why="no"))
    trial = judged(answers, {index: GIVEN[index] for index in SURVIVORS})
    assert trial.agree
    assert not trial.exact
    assert trial.false_successes == 0
    mixed = judged(
        {**answers, 0: success(0, 1, 2, 3)},
        {**{index: GIVEN[index] for index in SURVIVORS}, 0: mean_of(0, 1, 2, 3)},
    )
    assert not mixed.agree


def test_every_step_has_a_moment_and_the_engines_timeouts() -> None:
    assert set(MOMENT_OF) == set(STEPS)
    settings = bench_settings(20)
    assert (settings.chunk_s, settings.all_reduce_s) == (5.0, 40.0)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_real_member_killed_in_mid_round_is_judged(
    tmp_path: Path,
) -> None:
    with trio.fail_after(300):
        async with hivemind_cohort(4, tmp_path, 300_000, 20) as cohort:
            trial = await cohort.strike("kill", "gather", 0.0, victim=2)
            assert trial.successes + sum("failed" in note for note in trial.notes) == 3
            assert trial.fault_free_s > 0
            assert trial.after_s < 60
            # The victim is back, and a round without a fault is whole and exact again.
            await cohort.whole()
