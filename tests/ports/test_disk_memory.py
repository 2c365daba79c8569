"""The disk in memory passes the suite of `Disk`."""

from __future__ import annotations

import pytest
import trio

from protocol.ports.disk import Disk
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.medium import MemoryMedium, PowerCut
from tests.ports.disk_kit import KEPT, RUN, MediumFactory, checkpoint, content
from tests.ports.disk_suite import DiskSuite

pytestmark = pytest.mark.virtual_time


class InMemory:
    def __init__(self, *, keeps_unsynced: bool) -> None:
        self.medium = MemoryMedium(keeps_unsynced=keeps_unsynced)

    def open(self) -> Disk:
        return MemoryDisk(self.medium, KEPT)

    def cut_power_at(self, step: int | None) -> None:
        self.medium.cut_at = step

    def fill(self) -> None:
        self.medium.capacity_bytes = self.medium.used_bytes()

    def free(self) -> None:
        self.medium.capacity_bytes = float("inf")


class TestMemoryDisk(DiskSuite):
    @pytest.fixture(params=[False, True], ids=["loses-unsynced", "keeps-unsynced"])
    def make_medium(self, request: pytest.FixtureRequest) -> MediumFactory:
        return lambda: InMemory(keeps_unsynced=request.param)


async def test_node_cancelled_in_a_write_has_not_written() -> None:
    medium = MemoryMedium(write_s=2.0)
    await MemoryDisk(medium).save_checkpoint(checkpoint(1))
    with trio.move_on_after(1.0) as scope:
        await MemoryDisk(medium).save_checkpoint(checkpoint(2))
    assert scope.cancelled_caught
    assert content(await MemoryDisk(medium).load_checkpoint(RUN)) == content(checkpoint(1))


async def test_power_cut_before_the_last_sync_keeps_or_loses() -> None:
    for keeps, expected in ((False, 1), (True, 2)):
        medium = MemoryMedium(keeps_unsynced=keeps)
        await MemoryDisk(medium).save_checkpoint(checkpoint(1))
        medium.cut_at = 2
        with pytest.raises(PowerCut):
            await MemoryDisk(medium).save_checkpoint(checkpoint(2))
        assert content(await MemoryDisk(medium).load_checkpoint(RUN)) == content(
            checkpoint(expected)
        )
