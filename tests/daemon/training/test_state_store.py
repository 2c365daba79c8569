"""Tests from which checkpoint `StateStore` resumes.

The store deletes nothing, and never begins at genesis because of an unreadable file.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.disk.file_disk import FileDisk
from daemon.home.run_repair import repair
from daemon.swarm import certificate_shares
from protocol.ports.offload import inline
from tests.daemon.certified_home import (
    CertifiedHome,
    everything_in,
)
from tests.daemon.training.resumed_node import (
    DAMAGE,
    ROUNDS,
    ResumedNode,
    resumed,
    start_error,
)


async def test_state_store_resumes_from_an_intact_home(tmp_path: Path) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    node = await resumed(home)
    assert node.state_store.tip == home.tips[-1]
    assert node.state_store.ledger.weight == 7
    assert node.recorded == []


@pytest.mark.parametrize("damage", [damage for damage in DAMAGE if damage != "gone"])
async def test_state_store_resumes_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, damage: str
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    DAMAGE[damage](home.checkpoints[-1], 0.5)
    node = await resumed(home)
    assert node.state_store.tip == home.tips[ROUNDS - 1]
    assert len(node.disk.damaged) == 1
    assert "Number 8 is used instead" in node.disk.damaged[0]
    assert node.lineage.preferred_descendant(node.state_store.tip) == home.tips[ROUNDS], (
        "the node downloads the newest state"
    )
    assert await node.state_store.write([], lambda: 0.0) == []
    assert len(home.checkpoints) == 3, "a damaged checkpoint ahead of the node stays"


@pytest.mark.parametrize("damage", [damage for damage in DAMAGE if damage != "gone"])
async def test_state_store_stops_where_no_checkpoint_can_be_read(
    tmp_path: Path, damage: str
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    for path in home.checkpoints:
        DAMAGE[damage](path, 0.5)
    error = await start_error(home)
    assert "No checkpoint of this run can be read" in error.what
    assert len(repair(home.folder, home.signed)) == 3, (
        "the repair sets the three checkpoints aside and keeps the ledger"
    )
    node = ResumedNode(home)
    await node.state_store.resume()
    assert node.lineage.preferred_descendant(node.state_store.tip) == home.tips[-1]


async def test_state_store_stops_where_a_checkpoint_differs_from_its_certificate(
    tmp_path: Path,
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    await FileDisk(home.root, inline).save_checkpoint(
        replace(home.checkpoint(ROUNDS), anchor=home.checkpoint(1).anchor)
    )
    assert "does not have the state that its certificate names" in (await start_error(home)).what
    assert "does not have the state" in repair(home.folder, home.signed)[0]
    assert (await resumed(home)).state_store.tip == home.tips[ROUNDS - 1]


async def test_state_store_goes_on_when_checkpoints_become_unreadable(
    tmp_path: Path,
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    node = await resumed(home)
    folder = home.folder / "checkpoints"
    folder.rename(home.folder / "elsewhere")
    folder.write_bytes(b"")
    await node.state_store.write([], lambda: 0.0, full=True)
    (warning,) = node.warnings
    assert warning.startswith(
        "checkpoint 9 was not written: The checkpoints of this run cannot be read."
    )
    assert str(folder) in warning


async def test_state_store_resumes_at_the_fork_after_a_crash_while_it_left_a_branch(
    tmp_path: Path,
) -> None:
    """The store sets the branch's checkpoints aside before it removes the certificates.

    A checkpoint is thus never ahead of the certificates.
    """
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    await FileDisk(home.root, inline).leave_checkpoints(home.run, [home.tips[ROUNDS].hash])
    node = await resumed(home)
    assert node.state_store.tip == home.tips[ROUNDS - 1]
    assert (
        home.folder
        / "checkpoints"
        / "left"
        / f"{ROUNDS:010d}-{home.tips[ROUNDS].hash.hex()[:16]}"
        / f"{ROUNDS:010d}-{home.tips[ROUNDS].hash.hex()}.safetensors"
    ).exists()


async def test_state_store_resumes_from_a_checkpoint_far_behind_the_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk had room for certificates and none for checkpoints.

    Such a node used to begin at genesis despite its intact checkpoint.
    """
    monkeypatch.setattr(certificate_shares, "TIPS_KEPT", 4)
    home = await CertifiedHome(tmp_path, 3).write()
    disk = FileDisk(home.root, inline)
    for number in range(4, ROUNDS + 4):
        await home.append(disk, number)
    before = everything_in(home.folder / "checkpoints")
    node = await resumed(home)
    assert node.state_store.tip == home.tips[3]
    assert node.lineage.preferred_descendant(node.state_store.tip) == home.tips[-1], (
        "the node downloads the state of the newest certificate"
    )
    assert node.lineage.other_branches(node.state_store.tip) == []
    assert await node.state_store.write([], lambda: 0.0, full=True) == []
    assert everything_in(home.folder / "checkpoints").keys() == before.keys()
