"""Tests how a node resumes from intact, damaged and missing certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.disk.file_disk import FileDisk
from daemon.home.run_repair import repair
from daemon.services.training.native.state import state_sync
from daemon.services.training.native.state.disk_queries import (
    readable_certificates,
    readable_records,
)
from daemon.swarm import certificate_shares
from daemon.swarm.chain_sync import pack_record
from protocol.errors import UserError
from protocol.ports.offload import inline
from tests.daemon.certified_home import (
    CertifiedHome,
    everything_in,
)
from tests.daemon.training.resumed_node import (
    DAMAGE,
    ROUNDS,
    ResumedNode,
    replace_by_folder,
    resumed,
    start_error,
    truncate,
)


@pytest.mark.parametrize("place", [0.05, 0.4, 0.75, 0.999])
@pytest.mark.parametrize("damage", DAMAGE)
async def test_unreadable_certificates_stop_the_node_until_a_repair(
    tmp_path: Path, damage: str, place: float
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    checkpoints = {path.read_bytes() for path in home.checkpoints}
    DAMAGE[damage](home.folder / "certificates", place)
    error = await start_error(home)
    assert "certificate" in error.what
    assert "number" in error.what or "cannot be read" in error.what
    assert repair(home.folder, home.signed)
    assert checkpoints <= set(everything_in(home.folder).values()), "a repair deletes no checkpoint"
    node = ResumedNode(home)
    await node.state_store.resume()
    assert (
        node.state_store.tip.number == 0
        or node.state_store.tip == home.tips[node.state_store.tip.number]
    )
    assert repair(home.folder, home.signed) == [], "a second repair finds nothing"
    # Members send the lineage again. It continues what is left, and leads the node to its end.
    for number in range(1, ROUNDS + 1):
        node.lineage.add(home.raws[number - 1])
    assert node.lineage.best == home.tips[-1]
    ahead = node.lineage.preferred_descendant(node.state_store.tip)
    assert (ahead or node.state_store.tip) == home.tips[-1]


async def test_certificates_truncated_during_an_append_lose_nothing(tmp_path: Path) -> None:
    """The power fails during the write of certificate 10, before any peer hears of it."""
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    path = home.folder / "certificates"
    whole = path.read_bytes()
    await home.append(FileDisk(home.root, inline), ROUNDS + 1)
    longer = path.read_bytes()
    for torn in (
        longer[: len(whole) + 5],
        longer[: len(whole) + 60],
        longer[:-1],
        whole + bytes(len(longer) - len(whole)),
    ):
        path.write_bytes(torn)
        node = await resumed(home)
        assert node.state_store.tip == home.tips[ROUNDS]
        assert len(node.disk.damaged) == 1


async def test_certificates_without_any_checkpoint_cause_a_warning_and_a_download(
    tmp_path: Path,
) -> None:
    """A crash before the first checkpoint leaves such a home. The members have the state."""
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    for path in home.checkpoints:
        path.unlink()
    node = ResumedNode(home)
    assert (await node.state_store.resume()).startswith("beginning at genesis")
    assert node.warnings == [
        "The state of certificate 9 is not on disk. Downloading it from the members of the run."
    ]
    assert node.lineage.preferred_descendant(node.state_store.tip) == home.tips[-1]


@pytest.mark.parametrize("loss", ["removed", "emptied", "in a record"])
@pytest.mark.parametrize("checkpointed", [False, True])
async def test_a_file_of_certificates_lost_under_a_running_node_continues_after_what_is_left(
    tmp_path: Path, loss: str, checkpointed: bool
) -> None:
    """The next append used to write zeros in front, so that the next start stopped."""
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    disk = FileDisk(home.root, inline)
    assert len(await disk.certificates(home.run, 1, ROUNDS)) == ROUNDS
    path = home.folder / "certificates"
    match loss:
        case "removed":
            path.unlink()
        case "emptied":
            truncate(path, 0.0)
        case _:
            truncate(path, 0.5)
    await home.append(disk, ROUNDS + 1)
    assert ["were removed or cut short" in message for message in disk.damaged] == [True]
    if checkpointed:
        await disk.save_ledger(home.ledger(ROUNDS + 1))
        await disk.save_checkpoint(home.checkpoint(ROUNDS + 1), [home.tips[ROUNDS].hash])
    await home.append(disk, ROUNDS + 2)
    node = await resumed(home)
    assert node.recorded == node.disk.damaged == []
    assert node.state_store.tip == home.tips[ROUNDS + 1 if checkpointed else ROUNDS]
    assert node.lineage.preferred_descendant(node.state_store.tip) == home.tips[ROUNDS + 2]


async def test_certificates_that_are_unreadable_for_a_while_do_not_end_the_node(
    tmp_path: Path,
) -> None:
    """The medium fails or permissions change. Peers receive nothing, and later everything."""
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    node = await resumed(home)
    path = home.folder / "certificates"
    replace_by_folder(path, 0.0)
    assert await readable_records(node.disk, home.run, 1, ROUNDS) == []
    assert await readable_certificates(node.disk, home.run, ROUNDS) == []
    with pytest.raises(UserError, match="DAMAGED"):
        await node.disk.certificates(home.run, 1, ROUNDS)
    assert ["Is a directory). It is tried again" in message for message in node.disk.damaged] == [
        True
    ]
    path.rmdir()
    path.with_name("elsewhere").rename(path)
    assert await readable_certificates(node.disk, home.run, ROUNDS) == [home.raws[-1]]


async def test_a_node_that_joined_a_long_run_resumes_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a node has only the last certificates.

    Every restart used to end with `DAMAGED`, and a repair set the whole run aside.
    """
    monkeypatch.setattr(certificate_shares, "TIPS_KEPT", 4)
    members = await CertifiedHome(tmp_path / "members", ROUNDS).write()
    joiner = CertifiedHome(tmp_path / "joiner", ROUNDS)
    node = ResumedNode(joiner)
    await node.state_store.resume()
    for raw in members.raws:
        node.lineage.add(raw, source="a member", asked=True)
    tip = members.tips[-1]
    path = node.lineage.path(node.state_store.tip, tip)
    assert [certificate.outcome.number for certificate in path] == [6, 7, 8, 9]
    state = members.checkpoint(ROUNDS)
    node.state_store.anchor.spare_value[:], node.state_store.anchor.spare_momentum[:] = (
        state.anchor,
        state.momentum,
    )
    await node.state_store.anchor.digest_spare(inline)
    await node.state_store.move_to(tip, path, [])
    ((_, record), *_) = records = state_sync._records(path, 0)
    await node.disk.append_certificate(joiner.run, path[0].outcome.number, record)
    assert (await ResumedNode(joiner).state_store.resume()).startswith("beginning at genesis"), (
        "the power fails before the first checkpoint"
    )
    assert await node.state_store.write(records, lambda: 0.0) == []
    again = await resumed(joiner)
    assert again.state_store.tip == tip
    assert again.recorded == []
    assert not again.lineage.waiting
    assert repair(joiner.folder, joiner.signed) == []
    # The node goes on with the members, and restarts once more.
    await members.append(FileDisk(members.root, inline), ROUNDS + 1)
    (made,) = again.lineage.add(members.raws[-1])
    assert again.lineage.preferred_descendant(again.state_store.tip) == made.tip == members.tips[-1]
    await again.disk.append_certificate(joiner.run, ROUNDS + 1, pack_record([members.raws[-1]]))
    once_more = await resumed(joiner)
    assert once_more.state_store.tip == tip
    assert once_more.lineage.preferred_descendant(tip) == members.tips[-1]
    assert repair(joiner.folder, joiner.signed) == []
