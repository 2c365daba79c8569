"""Provides a node that resumes from a home, and the ways to damage a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.disk.file_disk import FileDisk
from daemon.services.training.native.engine_context import engine_context
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.lineage import Lineage
from protocol.errors import UserError
from protocol.journal import JournalEvent, Warned
from protocol.ports.disk import Disk
from protocol.ports.offload import inline
from protocol.ports.trainer import ParameterSpec, TaskInfo
from tests.daemon.certified_home import (
    FOUR,
    PARAMETERS,
    SHAPES,
    CertifiedHome,
    everything_in,
)

ROUNDS = 9


SPECS = tuple(ParameterSpec(name=name, shape=shape, init="zeros") for name, shape in SHAPES)


INFO = TaskInfo(parameters=PARAMETERS, specs=SPECS, dataset_size=1000, device="cpu", threads=1)


class ResumedNode:
    """A node that resumes from the disk of a home."""

    def __init__(self, home: CertifiedHome, disk: Disk | None = None) -> None:
        self.recorded: list[JournalEvent] = []
        self.lineage = Lineage(home.run, home.manifest, 10)
        self.disk = disk or FileDisk(home.root, inline)
        self.state_store = StateStore(
            context=engine_context(home.signed, FOUR[0]),
            info=INFO,
            lineage=self.lineage,
            disk=self.disk,
            offload=inline,
            record=self.recorded.append,
        )

    @property
    def warnings(self) -> list[str]:
        """The messages of the warnings that the node recorded."""
        return [event.message for event in self.recorded if isinstance(event, Warned)]


async def resumed(home: CertifiedHome) -> ResumedNode:
    """Return a node that has resumed from a certificate of the home."""
    node = ResumedNode(home)
    summary = await node.state_store.resume()
    assert summary.startswith(f"resuming from certificate {node.state_store.tip.number}")
    return node


async def start_error(home: CertifiedHome) -> UserError:
    """Return the error with which each start of the node ends. The starts change nothing."""
    before = everything_in(home.folder)
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            await ResumedNode(home).state_store.resume()
    assert everything_in(home.folder) == before
    assert caught.value.code == "DAMAGED"
    assert f"hypergpud --home {home.root} repair {home.run.hex()[:12]}" in caught.value.fix
    assert str(home.folder) in caught.value.why
    return caught.value


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def truncate(path: Path, place: float) -> None:
    path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)])


def replace_by_folder(path: Path, _: float) -> None:
    path.rename(path.with_name("elsewhere"))
    path.mkdir()


DAMAGE: dict[str, Callable[[Path, float], None]] = {
    "flipped": flip,
    "truncated": truncate,
    "emptied": lambda path, _: path.write_bytes(b"") and None,
    "zeroed": lambda path, _: path.write_bytes(bytes(path.stat().st_size)) and None,
    "gone": lambda path, _: path.unlink(),
    "refused": replace_by_folder,
}
