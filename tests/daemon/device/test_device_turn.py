"""The stage goes first, and training keeps its share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from daemon.device.device_turn import LINGER_S, STAGE_SHARE, DeviceTurn
from protocol.errors import UserError


class Clock:
    def __init__(self) -> None:
        self.time_s = 100.0

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds


def train(turn: DeviceTurn, stage: DeviceTurn | None, clock: Clock, until_s: float) -> int:
    """Train in steps of 0.1 s beside a stage that computes all the time, or beside none."""
    steps = 0
    while clock.time_s < until_s:
        if stage is not None:
            stage.note_stage()
        if turn.wait_for_stage():
            continue
        clock.sleep(0.1)
        turn.note_training(0.1)
        steps += 1
    return steps


def test_training_keeps_a_quarter_of_the_time_beside_a_busy_stage(tmp_path: Path) -> None:
    clock = Clock()
    path = str(tmp_path / "turn")
    training = DeviceTurn(path, clock.now, clock.sleep)
    stage = DeviceTurn(path, clock.now, clock.sleep)
    steps = train(training, stage, clock, 200.0)
    assert steps * 0.1 == pytest.approx((1 - STAGE_SHARE) * 100, rel=0.05)


def test_training_has_all_the_time_once_the_stage_is_idle(tmp_path: Path) -> None:
    clock = Clock()
    path = str(tmp_path / "turn")
    training = DeviceTurn(path, clock.now, clock.sleep)
    assert train(training, None, clock, 110.0) == pytest.approx(100, abs=1)
    DeviceTurn(path, clock.now, clock.sleep).note_stage()
    began_s = clock.time_s
    while training.wait_for_stage():
        pass
    assert clock.time_s - began_s == pytest.approx(LINGER_S, abs=0.02)
    assert not DeviceTurn("").wait_for_stage()


def test_stamp_of_an_earlier_start_of_the_machine_holds_nobody(tmp_path: Path) -> None:
    clock = Clock()
    path = str(tmp_path / "turn")
    DeviceTurn(path, lambda: 1e9, clock.sleep).note_stage()
    training = DeviceTurn(path, clock.now, clock.sleep)
    training.note_training(10.0)
    assert not training.wait_for_stage()


def test_stage_of_another_process_is_seen(tmp_path: Path) -> None:
    path = str(tmp_path / "turn")
    training = DeviceTurn(path)
    training.note_training(10.0)
    assert not training.wait_for_stage()
    note = "import sys; from daemon.device.device_turn import DeviceTurn as T"
    subprocess.run([sys.executable, "-c", f"{note}; T(sys.argv[1]).note_stage()", path], check=True)
    assert training.wait_for_stage()


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot share"):
        DeviceTurn(str(tmp_path / "missing" / "turn"))
    (tmp_path / "odd").write_bytes(b"x" * 100)
    assert not DeviceTurn(str(tmp_path / "odd")).wait_for_stage()
