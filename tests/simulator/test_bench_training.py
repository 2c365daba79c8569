"""`bench training` computes its figures from the peers' files, and refuses runs that do not count.

One test trains two real peers for a few seconds.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from simulator.bench.training.conductor import measure
from simulator.bench.training.memory import descendants
from simulator.bench.training.plan import variants_of
from simulator.bench.training.run_record import (
    LossPoint,
    RunRecord,
    ratios,
    target_of,
    time_to,
    with_targets,
)
from simulator.bench.training.snapshots import SnapshotWriter, load, read_snapshots
from simulator.bench.training.step_log import (
    StepLog,
    StepRecord,
    compute_share,
    late_share,
    read_steps,
    void_reason,
    within,
)
from simulator.bench.training.table import table
from simulator.harness.netns import missing_for_namespaces
from tests.simulator.training_plans import plan_of


def points_of(*scores: tuple[float, float]) -> tuple[LossPoint, ...]:
    return tuple(LossPoint(at_s=at_s, samples=round(10 * at_s), loss=loss) for at_s, loss in scores)


def record_of(
    arm: str, *scores: tuple[float, float], seed: int = 1, sent: int | None = None, void: str = ""
) -> RunRecord:
    return RunRecord(
        arm=arm,
        settings={},
        seed=seed,
        peers=4,
        parameters=100,
        rate="100mbit",
        rtt_ms=30.0,
        seconds=100.0,
        target=None,
        seconds_to_target=None,
        held_out_final=scores[-1][1],
        samples=1000,
        bytes_per_peer=sent,
        compute_share=0.9,
        steps=100,
        late_steps=0,
        memory_bytes={"node": 2800},
        void=void,
        notes=(),
        points=points_of(*scores),
    )


def steps_of(late: int, of: int) -> list[StepRecord]:
    return [
        StepRecord(began_s=number, ended_s=number + 0.5, late=number < late) for number in range(of)
    ]


def test_time_to_a_target_lies_on_the_line_between_two_scores() -> None:
    points = points_of((0.0, 5.0), (10.0, 3.0), (20.0, 2.0), (30.0, 2.4))
    assert time_to(points, 4.0) == 5.0
    assert time_to(points, 3.0) == 10.0
    assert time_to(points, 2.25) == 17.5
    assert time_to(points, 1.9) is None
    assert time_to(points, 6.0) == 0.0


def test_target_is_the_median_of_a_lone_machines_last_tenth() -> None:
    points = points_of((50.0, 9.0), (90.0, 2.0), (95.0, 2.6), (100.0, 2.1))
    assert target_of(points, 100.0) == 2.1
    assert target_of(points[:1], 100.0) is None


def test_ratios_compare_seed_by_seed_and_bound_what_never_arrived() -> None:
    records = with_targets(
        [
            record_of("alone", (0.0, 4.0), (100.0, 2.0)),
            record_of("native", (0.0, 4.0), (40.0, 2.0)),
            record_of("hivemind-b", (0.0, 4.0), (60.0, 2.0)),
            record_of("hivemind-a", (0.0, 4.0), (100.0, 3.0)),
            record_of("gloo", (0.0, 4.0), (10.0, 2.0), void="busy"),
        ]
    )
    assert [record.target for record in records] == [2.0] * 5
    found = ratios(records, "native")
    assert found["hivemind-b"] == (pytest.approx(1.5), True)
    # It never reached the target in its 100 s: at least 2.5 times as long.
    assert found["hivemind-a"] == (pytest.approx(2.5), False)
    assert "gloo" not in found


def test_target_of_a_void_lone_run_is_unknown() -> None:
    records = [record_of("alone", (100.0, 2.0), void="busy"), record_of("native", (50.0, 2.0))]
    assert with_targets(records)[1].target is None
    assert with_targets(records, 2.0)[1].seconds_to_target == 50.0


def test_table_names_every_ratio_its_bytes_and_void_runs() -> None:
    records = with_targets(
        [
            record_of("alone", (0.0, 4.0), (100.0, 2.0)),
            record_of("native", (0.0, 4.0), (40.0, 2.0), sent=10_000_000),
            record_of("hivemind-b", (0.0, 4.0), (60.0, 2.0), sent=30_000_000),
            record_of("hivemind-a", (0.0, 4.0), (100.0, 3.0), sent=30_000_000),
            record_of("gloo", (0.0, 4.0), (10.0, 2.0), void="busy"),
        ]
    )
    text = table(records)
    assert "native reaches the target 1.50 times as fast as hivemind-b" in text
    assert "which sends 3.0 times the bytes" in text
    assert "at least 2.50 times as fast as hivemind-a" in text
    assert "gloo, seed 1, does not count: busy" in text
    assert "node 28" in text


def test_run_with_more_than_two_percent_of_late_steps_is_void() -> None:
    assert void_reason(steps_of(2, 100)) == ""
    assert "3.0% of the steps were late" in void_reason(steps_of(3, 100))
    assert void_reason([]) == "no peer finished a step"
    assert late_share([]) == 0.0


def test_step_log_keeps_whole_lines_and_counts_the_measured_time(tmp_path: Path) -> None:
    log = StepLog(tmp_path)
    for step in steps_of(1, 4):
        log.add(step)
    file = tmp_path / f"steps-{os.getpid()}.jsonl"
    # The line of a process that was killed while it wrote.
    file.write_bytes(file.read_bytes() + b"[4.0,4.")
    (steps,) = read_steps(tmp_path)
    assert list(steps) == steps_of(1, 4)
    inside = within([steps, steps], 1.0, 3.0)
    assert [step.began_s for step in inside] == [1, 2, 1, 2]
    assert compute_share(inside, 2, 2.0) == 0.5


def test_snapshots_come_back_in_order_with_their_parameters(tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path / "peer-0", 0.0)
    first, second = np.arange(3, dtype=np.float32), np.ones(3, np.float32)
    writer.write(first, 8)
    writer.write(second, 16)
    found = read_snapshots(tmp_path / "peer-0")
    assert [one.samples for one in found] == [8, 16]
    assert found[0].at_s <= found[1].at_s
    assert np.array_equal(load(tmp_path / "peer-0", found[0]), first)
    assert np.array_equal(load(tmp_path / "peer-0", found[1]), second)
    assert read_snapshots(tmp_path / "peer-1") == []


def test_snapshot_is_due_when_its_spacing_has_passed(tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path / "peer-0", 1e6)
    assert writer.due
    writer.write(np.ones(3, np.float32), 8)
    assert not writer.due


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_native_peers_train_beside_one_process_alone(tmp_path: Path) -> None:
    said: list[str] = []
    plan = plan_of(
        variants=variants_of(("alone", "native"), ("native:round.seconds=1.0",), ()),
        peers=2,
        seconds=8.0,
        rate="none",
        rtt_ms=0.0,
    )
    records = measure(plan, said.append, keep=tmp_path)
    assert [record.arm for record in records] == ["alone", "native"]
    for record in records:
        assert record.parameters == 435_456
        assert record.steps > 20
        # All arms begin with the same parameters.
        assert record.points[0].loss == records[0].points[0].loss
        assert record.held_out_final < record.points[0].loss - 0.5
    alone, native = records
    assert native.steps > 1.2 * alone.steps
    assert native.points[-1].samples > 0
    assert native.memory_bytes["worker"] > 4 * native.parameters
    # Whatever the peers started ended with them.
    assert descendants(os.getpid()) == []


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    bool(missing_for_namespaces()), reason=f"no network namespaces: {missing_for_namespaces()}"
)
def test_peers_compute_for_95_percent_of_the_time_where_the_exchange_takes_half_of_the_round(
    tmp_path: Path,
) -> None:
    """Two seconds of training, and an exchange of 1.9 s at 10 Mbit/s.

    Without overlap the same peers compute for half of the time.
    """
    settings = ("native:codec=float32", "native:round.seconds=2")
    shares: dict[str, float] = {}
    for overlap in ("true", "false"):
        plan = plan_of(
            variants=variants_of(("native",), (*settings, f"native:round.overlap={overlap}"), ()),
            peers=2,
            seconds=40.0,
            step_s=0.1,
            rate="10mbit",
            rtt_ms=0.0,
        )
        (record,) = measure(plan, lambda _: None, target=2.0, keep=tmp_path / overlap)
        assert not record.void, record.void
        shares[overlap] = record.compute_share
    assert shares["true"] >= 0.95
    assert shares["false"] <= 0.7
