"""Tests how a node resumes its ledger and its views, and which work it drops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from daemon.disk.file_disk import FileDisk
from daemon.home.run_repair import repair
from daemon.swarm import certificate_shares
from daemon.swarm.chain_sync import pack_record
from protocol.errors import UserError
from protocol.journal import WorkDropped
from protocol.ports.disk_records import HeldCertificate
from protocol.ports.offload import inline
from tests.daemon.certified_home import (
    FOUR,
    CertifiedHome,
)
from tests.daemon.training.resumed_node import (
    DAMAGE,
    ROUNDS,
    ResumedNode,
    replace_by_folder,
    resumed,
    start_error,
)
from tests.protocol.rounds import Made


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "zeroed"])
async def test_ledger_store_loses_the_work_of_a_damaged_ledger_and_sets_the_file_aside(
    tmp_path: Path, damage: str
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    path = home.folder / "ledger.safetensors"
    DAMAGE[damage](path, 0.5)
    damaged = path.read_bytes()
    node = await resumed(home)
    assert node.state_store.ledger.weight == 0
    assert node.state_store.ledger.next_seq == ROUNDS + 1
    assert "Work that waited in it for a round is lost" in node.disk.damaged[0]
    assert (home.folder / "ledger.safetensors.damaged").read_bytes() == damaged


@pytest.mark.parametrize("name", ["ledger.safetensors", "stands"])
async def test_an_unreadable_ledger_or_view_file_stops_the_node(tmp_path: Path, name: str) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    replace_by_folder(home.folder / name, 0.0)
    error = await start_error(home)
    assert "Is a directory" in error.what
    assert len(repair(home.folder, home.signed)) == 1
    assert (await resumed(home)).state_store.tip == home.tips[-1]


async def test_unreadable_times_of_adoption_stop_the_node_until_they_are_set_aside(
    tmp_path: Path,
) -> None:
    home = await CertifiedHome(tmp_path, 2).write()
    held = [HeldCertificate(certificate=home.tips[-1].hash, since_s=1e9)]
    await FileDisk(home.root, inline).save_held(home.run, held)
    replace_by_folder(home.folder / "held", 0.0)
    with pytest.raises(UserError, match="times of adoption of this run cannot be read"):
        await FileDisk(home.root, inline).load_held(home.run)
    assert len(repair(home.folder, home.signed)) == 1
    assert await FileDisk(home.root, inline).load_held(home.run) == []


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "zeroed"])
async def test_a_damaged_view_file_is_reported(tmp_path: Path, damage: str) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    path = home.folder / "stands"
    DAMAGE[damage](path, 0.004 if damage == "flipped" else 0.3)
    node = await resumed(home)
    assert [
        "votes in a round that has not ended are lost" in message for message in node.disk.damaged
    ] == [True]


class AnchorMovesDuringWrites(FileDisk):
    """A disk that lets the anchor move while it writes a certificate."""

    moves: Callable[[], Awaitable[None]] | None = None

    async def append_certificate(self, run: bytes, number: int, certificate: bytes) -> None:
        await super().append_certificate(run, number, certificate)
        if self.moves is not None:
            await self.moves()


async def test_ledger_store_does_not_save_a_newer_ledger_under_an_older_tip(
    tmp_path: Path,
) -> None:
    """The anchor moves during a write. After a kill, the node used to settle twice."""
    home = await CertifiedHome(tmp_path / "home", 2).write()
    disk = AnchorMovesDuringWrites(home.root, inline)
    node = ResumedNode(home, disk)
    await node.state_store.resume()
    members = FileDisk(tmp_path / "members", inline)
    for number in (3, 4):
        await home.append(members, number)
        node.lineage.add(home.raws[-1])

    async def move(number: int) -> None:
        state = home.checkpoint(number)
        node.state_store.anchor.spare_value[:], node.state_store.anchor.spare_momentum[:] = (
            state.anchor,
            state.momentum,
        )
        await node.state_store.anchor.digest_spare(inline)
        await node.state_store.move_to(
            home.tips[number], node.lineage.path(node.state_store.tip, home.tips[number]), []
        )

    await move(3)
    disk.moves = lambda: move(4)
    records = [(3, pack_record([home.raws[2]]))]
    assert await node.state_store.write(records, lambda: 0.0, full=True) == []
    kept = await disk.load_ledger(home.run)
    assert kept is not None
    assert (kept.tip, kept.weight) == (home.tips[2].hash, 7), (
        "the older ledger matches the certificates on disk"
    )
    disk.moves = None
    records = [(4, pack_record([home.raws[3]]))]
    assert await node.state_store.write(records, lambda: 0.0, full=True) == []
    kept = await disk.load_ledger(home.run)
    assert kept is not None
    assert kept.tip == home.tips[4].hash


async def test_ledger_store_drops_work_that_an_old_ledger_does_not_know(
    tmp_path: Path,
) -> None:
    """A home from a backup trains under a number that is certified already.

    The reason names this, not the limit of samples.
    """
    home = await CertifiedHome(tmp_path, 2).write()
    node = await resumed(home)
    before = node.state_store.tip
    disk = FileDisk(tmp_path / "members", inline)
    await home.append(disk, 3)
    node.lineage.add(home.raws[-1], source="a member", asked=True)
    path = node.lineage.path(before, home.tips[-1])
    listed = path[0].listed[FOUR[0].peer]
    assert not node.state_store.ledger.knows(listed)
    node.state_store.ledger_store.settle(before, path)
    assert [event.reason for event in node.recorded if isinstance(event, WorkDropped)] == [
        "certificate 3 counts later work of this node than its ledger on disk has"
    ]


async def test_ledger_store_drops_work_that_forgotten_certificates_may_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another offer of such work could count it twice."""
    home = await CertifiedHome(tmp_path, 2).write()
    node = await resumed(home)
    assert node.state_store.ledger.pending == 7
    before = node.state_store.tip
    node.lineage.adopt(before)
    monkeypatch.setattr(certificate_shares, "TIPS_KEPT", 2)
    disk = FileDisk(tmp_path / "members", inline)
    for number in range(3, 8):
        await home.append(disk, number)
        node.lineage.add(home.raws[-1], source="a member", asked=True)
    path = node.lineage.path(before, home.tips[-1])
    assert [certificate.outcome.number for certificate in path] == [6, 7]
    node.state_store.ledger_store.settle(before, path)
    assert node.state_store.ledger.pending == 0
    assert [event.reason for event in node.recorded if isinstance(event, WorkDropped)] == [
        "a certificate that is no longer kept may count it"
    ]


async def test_ledger_store_reports_work_that_is_left_behind_once(tmp_path: Path) -> None:
    """The state of the last certificate on disk is gone, and the node follows another branch."""
    home = await CertifiedHome(tmp_path, 3).write()
    home.checkpoints[-1].unlink()
    node = await resumed(home)
    assert node.state_store.tip == home.tips[2]
    lost = node.lineage.path(home.tips[2], home.tips[3])[0]
    assert node.state_store.returning is not None
    for seq in (4, 5):
        tip = node.state_store.tip
        made = Made(FOUR, tip, seq=seq, run=home.run, manifest=home.manifest)
        entry = node.lineage.add(made.raw(), source="a member", asked=True)[0]
        assert not node.lineage.descends(entry.tip, home.tips[3])
        await node.state_store.move_to(entry.tip, [entry.certificate], [])
    assert node.state_store.returning is None
    dropped = [event for event in node.recorded if isinstance(event, WorkDropped)]
    assert [event.samples for event in dropped if "no member served" in event.reason] == [
        lost.plan.offers[lost.plan.index[FOUR[0].peer]].samples
    ]
