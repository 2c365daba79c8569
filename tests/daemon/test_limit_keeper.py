"""The limits of a volunteer, kept in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemon.config.settings import Config, DiskConfig, LimitsConfig
from daemon.node.disk_setup import keep_bytes
from daemon.node.limit_keeper import LOOK_S, LimitKeeper, caps_of
from protocol.journal import JournalEvent, LimitsReport, TrainingHeld
from protocol.limits.limits import LimitPause, Limits, Readings
from protocol.status import fold, status_at
from tests.story import AT, day, folded

NOON = 12 * 60


class _Machine:
    """A machine whose readings a test sets."""

    def __init__(self) -> None:
        self.now = Readings(minute=NOON)

    def read(self, limits: Limits) -> Readings:
        return self.now


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read without a thread, which virtual time cannot see."""

    async def read(work: object) -> object:
        await trio.lowlevel.checkpoint()
        return work()  # type: ignore[operator]

    monkeypatch.setattr("daemon.node.limit_keeper.in_abandonable_thread", read)


@pytest.mark.usefixtures("direct")
async def test_limit_keeper_holds_and_releases(autojump_clock: MockClock, tmp_path: Path) -> None:
    machine, said, held = _Machine(), list[JournalEvent](), list[bool]()
    config = Config(home=tmp_path, limits=LimitsConfig(hours="22:00-07:00", temperature_c=80))
    keeper = LimitKeeper(config, machine, said.append)
    machine.now = Readings(minute=NOON, temperature_c=60.0)

    async def hold(now: bool) -> None:
        await trio.lowlevel.checkpoint()
        held.append(now)

    await keeper.look()
    assert keeper.pauses
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run, hold)
        await trio.sleep(3.5 * LOOK_S)
        assert held == [True]
        machine.now = Readings(minute=22 * 60, temperature_c=70.0)
        await trio.sleep(2 * LOOK_S)
        assert held == [True, False]
        machine.now = Readings(minute=22 * 60, temperature_c=81.0)
        await trio.sleep(2 * LOOK_S)
        machine.now = Readings(minute=22 * 60, temperature_c=75.0)
        await trio.sleep(2 * LOOK_S)
        assert held == [True, False, True], "it waits until the processor is clearly cooler"
        nursery.cancel_scope.cancel()
    reports = [event for event in said if isinstance(event, LimitsReport)]
    assert [[one.limit for one in report.pauses] for report in reports] == [
        ["hours"],
        [],
        ["temperature_c"],
    ], "one report for each change"


@pytest.mark.usefixtures("direct")
async def test_limit_keeper_reports_a_limit_that_it_cannot_keep(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    said: list[JournalEvent] = []
    config = Config(home=tmp_path, limits=LimitsConfig(power_w=100))
    keeper = LimitKeeper(config, _Machine(), said.append)
    await keeper.look()
    await keeper.look()
    assert not keeper.pauses
    (report,) = said
    assert isinstance(report, LimitsReport)
    assert report.blind == (
        "limits.power_w has no effect on this machine: no meter of its device can be read",
    )


def test_status_says_why_a_limit_pauses_and_until_when() -> None:
    state = folded(day())
    pause = LimitPause(limit="hours", until="22:00", reason='hours = "22:00-07:00"')
    fold(state, LimitsReport(at=AT, pauses=(pause,), caps=("upload at most 8 Mbit/s",)))
    fold(state, TrainingHeld(at=AT, held=True))
    status = status_at(state, AT)
    assert 'Training is paused until 22:00: hours = "22:00-07:00"' in status.verdict
    assert "hypergpud config set limits.hours" in status.verdict
    assert status.you.limits.caps == ("upload at most 8 Mbit/s",)
    fold(state, LimitsReport(at=AT, pauses=()))
    assert "To train again: hypergpud resume" in status_at(state, AT).verdict


def test_caps_are_sentences_and_the_disk_limit_bounds_old_checkpoints(tmp_path: Path) -> None:
    assert caps_of(LimitsConfig()) == ()
    limits = LimitsConfig(upload_mbps=2.5, download_mbps=100, memory_gb=4, disk_gb=10)
    assert caps_of(limits) == (
        "upload at most 2.5 Mbit/s",
        "download at most 100 Mbit/s",
        "the worker takes at most 4.0 GB",
    )
    assert keep_bytes(Config(home=tmp_path)) == 20_000_000_000
    assert keep_bytes(Config(home=tmp_path, limits=limits)) == 5_000_000_000
    kept = Config(home=tmp_path, limits=limits, disk=DiskConfig(keep_gb=1))
    assert keep_bytes(kept) == 1_000_000_000
