"""Taking a run up from disk: from its checkpoint, or not at all.

Nothing that cannot be read leads to genesis, and nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from daemon.disk.checkpoint_file import read_checkpoint
from daemon.disk.file_disk import FileDisk
from daemon.home.run_repair import repair
from daemon.services.training.native.state import state_sync
from daemon.services.training.native.state.disk_queries import (
    readable_certificates,
    readable_records,
)
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm import certificate_shares
from daemon.swarm.chain_sync import pack_record
from daemon.swarm.lineage import Lineage
from protocol.averaging import slice_sizes, vector_layout
from protocol.certificates import leader_order, tip
from protocol.errors import UserError
from protocol.journal import JournalEvent, Warned, WorkDropped
from protocol.planning import group_choice
from protocol.ports.disk import Disk
from protocol.ports.offload import inline
from protocol.ports.trainer import ParameterSpec, TaskInfo
from protocol.rules.registry import RULE_SETS
from tests.daemon.certified_home import (
    FOUR,
    PARAMETERS,
    SHAPES,
    CertifiedHome,
    everything_in,
    vector,
)

ROUNDS = 9
SPECS = tuple(ParameterSpec(name=name, shape=shape, init="zeros") for name, shape in SHAPES)
INFO = TaskInfo(parameters=PARAMETERS, specs=SPECS, dataset_size=1000, device="cpu", threads=1)


class Resumed:
    """A node that takes up what is on a home's disk."""

    def __init__(self, home: CertifiedHome, disk: Disk | None = None) -> None:
        self.told: list[JournalEvent] = []
        self.lineage = Lineage(home.run, home.manifest, 10)
        self.disk = disk or FileDisk(home.root, inline)
        self.state_store = StateStore(
            run=home.run,
            me=FOUR[0].peer,
            manifest=home.manifest,
            info=INFO,
            lineage=self.lineage,
            disk=self.disk,
            offload=inline,
            record=self.told.append,
        )

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.told if isinstance(event, Warned)]


async def resumed(home: CertifiedHome) -> Resumed:
    node = Resumed(home)
    said = await node.state_store.resume()
    assert said.startswith(f"resuming from certificate {node.state_store.tip.number}")
    return node


async def stopped(home: CertifiedHome) -> UserError:
    """The node says why it stops, again and again, and changes nothing."""
    before = everything_in(home.folder)
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            await Resumed(home).state_store.resume()
    assert everything_in(home.folder) == before
    assert caught.value.code == "DAMAGED"
    assert f"hypergpud --home {home.root} repair {home.run.hex()[:12]}" in caught.value.fix
    assert str(home.folder) in caught.value.why
    return caught.value


async def test_a_whole_home_resumes(tmp_path: Path) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    node = await resumed(home)
    assert node.state_store.tip == home.tips[-1]
    assert node.state_store.ledger.weight == 7
    assert node.told == []


def _ties_to_the_last(chunks: int, shares: Sequence[float]) -> tuple[int, ...]:
    return tuple(
        chunks - border
        for border in reversed(vector_layout.share_out(chunks, list(reversed(shares))))
    )


CHANGED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "how slices are shared out": lambda patch: patch.setattr(
        vector_layout, "share_out", _ties_to_the_last
    ),
    "group choice": lambda patch: patch.setattr(group_choice, "NEARNESS", 0.5),
    "slices": lambda patch: patch.setattr(slice_sizes, "STEPS", 3),
    "lanes": lambda patch: patch.setattr(tip, "NEWCOMER_LANES", 5),
    "every function of the registry": lambda patch: [  # type: ignore[func-returns-value]
        patch.setitem(
            RULE_SETS,
            version,
            replace(
                rules,
                choose=_never,
                share_out=_ties_to_the_last,
                leader_order=lambda parent, candidates: tuple(sorted(candidates)),
                check_inclusion=_never,
                weighted_mean=_never,
                outer_step=_never,
                merge_vectors=_never,
            ),
        )
        for version, rules in RULE_SETS.items()
    ],
    "who leads": lambda patch: patch.setattr(
        leader_order, "leader_order", lambda parent, candidates: tuple(sorted(candidates))
    ),
}


def _never(*_: object, **__: object) -> None:
    raise AssertionError("what was certified is not computed again")


@pytest.mark.parametrize("rule", CHANGED)
async def test_a_release_with_another_rule_resumes_and_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """One character in a tie rule: nine certified rounds were taken for forged, the node began at
    genesis and deleted its checkpoints.
    """
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    before = everything_in(home.folder)
    CHANGED[rule](monkeypatch)
    node = await resumed(home)
    assert node.state_store.tip.hash == home.tips[-1].hash
    assert node.warnings == []
    assert await node.state_store.write([], lambda: 0.0) == []
    after = everything_in(home.folder)
    assert after.keys() == before.keys()
    written = {name for name in before if after[name] != before[name]}
    # Where the next round's data begins follows from the lanes, and is kept beside the state.
    newest = {f"checkpoints/{home.checkpoints[-1].name}"} if rule == "lanes" else set()
    assert written == {"ledger.safetensors", *newest}
    assert np.array_equal(
        read_checkpoint(home.checkpoints[-1], home.run, node.state_store.tip.hash, ROUNDS).anchor,
        vector(ROUNDS, 0),
    )


def _flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def _cut(path: Path, place: float) -> None:
    path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)])


def _folder(path: Path, _: float) -> None:
    path.rename(path.with_name("elsewhere"))
    path.mkdir()


RUINS: dict[str, Callable[[Path, float], None]] = {
    "flipped": _flip,
    "truncated": _cut,
    "emptied": lambda path, _: path.write_bytes(b"") and None,
    "zeroed": lambda path, _: path.write_bytes(bytes(path.stat().st_size)) and None,
    "gone": lambda path, _: path.unlink(),
    "refused": _folder,
}


@pytest.mark.parametrize("place", [0.05, 0.4, 0.75, 0.999])
@pytest.mark.parametrize("ruin", RUINS)
async def test_certificates_that_do_not_read_back_stop_the_node_and_a_repair_lets_it_go_on(
    tmp_path: Path, ruin: str, place: float
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    checkpoints = {path.read_bytes() for path in home.checkpoints}
    RUINS[ruin](home.folder / "certificates", place)
    error = await stopped(home)
    assert "certificate" in error.what
    assert "number" in error.what or "cannot be read" in error.what
    said = repair(home.folder, home.signed)
    assert said
    assert checkpoints <= set(everything_in(home.folder).values()), "nothing was deleted"
    node = Resumed(home)
    await node.state_store.resume()
    assert (
        node.state_store.tip.number == 0
        or node.state_store.tip == home.tips[node.state_store.tip.number]
    )
    assert repair(home.folder, home.signed) == [], "what is left fits together"
    # Members give the lineage again: it joins what stayed, and the node is led to its end.
    for number in range(1, ROUNDS + 1):
        node.lineage.add(home.raws[number - 1])
    assert node.lineage.best == home.tips[-1]
    ahead = node.lineage.preferred_descendant(node.state_store.tip)
    assert (ahead or node.state_store.tip) == home.tips[-1]


async def test_certificates_cut_off_in_the_middle_of_an_append_cost_nothing(tmp_path: Path) -> None:
    """A power cut while certificate 10 was written, of which nothing was told to anybody yet."""
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


@pytest.mark.parametrize("ruin", [ruin for ruin in RUINS if ruin != "gone"])
async def test_the_newest_checkpoint_may_be_damaged_and_the_one_before_goes_on(
    tmp_path: Path, ruin: str
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    RUINS[ruin](home.checkpoints[-1], 0.5)
    node = await resumed(home)
    assert node.state_store.tip == home.tips[ROUNDS - 1]
    assert len(node.disk.damaged) == 1
    assert "Number 8 is used instead" in node.disk.damaged[0]
    assert node.lineage.preferred_descendant(node.state_store.tip) == home.tips[ROUNDS], (
        "and the members are asked for the newest state"
    )
    assert await node.state_store.write([], lambda: 0.0) == []
    assert len(home.checkpoints) == 3, "damaged and ahead of us: it stays where it is"


@pytest.mark.parametrize("ruin", [ruin for ruin in RUINS if ruin != "gone"])
async def test_no_checkpoint_that_can_be_read_stops_the_node(tmp_path: Path, ruin: str) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    for path in home.checkpoints:
        RUINS[ruin](path, 0.5)
    error = await stopped(home)
    assert "No checkpoint of this run can be read" in error.what
    assert len(repair(home.folder, home.signed)) == 3, "the ledger fits the certificates"
    node = Resumed(home)
    await node.state_store.resume()
    assert node.lineage.preferred_descendant(node.state_store.tip) == home.tips[-1]


async def test_certificates_without_any_checkpoint_are_said_and_asked_for(tmp_path: Path) -> None:
    """As after a crash before the first checkpoint: there is nothing to lose, and the members hold
    the state.
    """
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    for path in home.checkpoints:
        path.unlink()
    node = Resumed(home)
    assert (await node.state_store.resume()).startswith("beginning at genesis")
    assert node.warnings == [
        "The state of certificate 9 is not on disk. Downloading it from the members of the run."
    ]
    assert node.lineage.preferred_descendant(node.state_store.tip) == home.tips[-1]


async def test_a_checkpoint_with_another_state_than_its_certificate_names_stops_the_node(
    tmp_path: Path,
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    await FileDisk(home.root, inline).save_checkpoint(
        replace(home.checkpoint(ROUNDS), anchor=home.checkpoint(1).anchor)
    )
    assert "does not have the state that its certificate names" in (await stopped(home)).what
    assert "does not have the state" in repair(home.folder, home.signed)[0]
    assert (await resumed(home)).state_store.tip == home.tips[ROUNDS - 1]


@pytest.mark.parametrize("ruin", ["flipped", "truncated", "emptied", "zeroed"])
async def test_a_damaged_ledger_costs_its_work_and_is_set_aside(tmp_path: Path, ruin: str) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    path = home.folder / "ledger.safetensors"
    RUINS[ruin](path, 0.5)
    damaged = path.read_bytes()
    node = await resumed(home)
    assert node.state_store.ledger.weight == 0
    assert node.state_store.ledger.next_seq == ROUNDS + 1
    assert "Work that waited in it for a round is lost" in node.disk.damaged[0]
    assert (home.folder / "ledger.safetensors.damaged").read_bytes() == damaged


@pytest.mark.parametrize("name", ["ledger.safetensors", "stands"])
async def test_a_ledger_or_stands_that_the_system_refuses_stop_the_node(
    tmp_path: Path, name: str
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    _folder(home.folder / name, 0.0)
    error = await stopped(home)
    assert "Is a directory" in error.what
    assert len(repair(home.folder, home.signed)) == 1
    assert (await resumed(home)).state_store.tip == home.tips[-1]


@pytest.mark.parametrize("ruin", ["flipped", "truncated", "emptied", "zeroed"])
async def test_damaged_stands_are_said(tmp_path: Path, ruin: str) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    path = home.folder / "stands"
    RUINS[ruin](path, 0.004 if ruin == "flipped" else 0.3)
    node = await resumed(home)
    assert [
        "votes in a round that has not ended are lost" in words for words in node.disk.damaged
    ] == [True]


async def test_checkpoints_that_cannot_be_read_any_more_while_the_node_runs_do_not_end_it(
    tmp_path: Path,
) -> None:
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    node = await resumed(home)
    folder = home.folder / "checkpoints"
    folder.rename(home.folder / "elsewhere")
    folder.write_bytes(b"")
    await node.state_store.write([], lambda: 0.0)
    (said,) = node.warnings
    assert said.startswith(
        "checkpoint 9 was not written: The checkpoints of this run cannot be read."
    )
    assert str(folder) in said


async def test_a_crash_while_a_branch_is_left_goes_on_where_the_branches_part(
    tmp_path: Path,
) -> None:
    """Its checkpoints are set apart before its certificates are cut off: at no instant is a
    checkpoint ahead of the certificates.
    """
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    await FileDisk(home.root, inline).leave_checkpoints(home.run, [home.tips[ROUNDS].hash])
    node = await resumed(home)
    assert node.state_store.tip == home.tips[ROUNDS - 1]
    assert (
        home.folder
        / "checkpoints"
        / "left"
        / f"{ROUNDS:010d}-{home.tips[ROUNDS].hash.hex()}.safetensors"
    ).exists()


async def test_a_checkpoint_far_behind_its_certificates_is_resumed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk with room for certificates and none for checkpoints.

    The node began at genesis beside its own whole checkpoint.
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
        "the members are asked for the state of the newest"
    )
    assert node.lineage.other_branches(node.state_store.tip) == []
    assert await node.state_store.write([], lambda: 0.0) == []
    assert everything_in(home.folder / "checkpoints").keys() == before.keys()


@pytest.mark.parametrize("cut", ["removed", "emptied", "in a record"])
@pytest.mark.parametrize("checkpointed", [False, True])
async def test_certificates_that_are_lost_under_a_running_node_go_on_behind_what_is_left(
    tmp_path: Path, cut: str, checkpointed: bool
) -> None:
    """The next append made the file anew with zeros in front, and the next start stopped."""
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    disk = FileDisk(home.root, inline)
    assert len(await disk.certificates(home.run, 1, ROUNDS)) == ROUNDS
    path = home.folder / "certificates"
    match cut:
        case "removed":
            path.unlink()
        case "emptied":
            _cut(path, 0.0)
        case _:
            _cut(path, 0.5)
    await home.append(disk, ROUNDS + 1)
    assert ["were removed or cut short" in words for words in disk.damaged] == [True]
    if checkpointed:
        await disk.save_ledger(home.ledger(ROUNDS + 1))
        await disk.save_checkpoint(home.checkpoint(ROUNDS + 1), [home.tips[ROUNDS].hash])
    await home.append(disk, ROUNDS + 2)
    node = await resumed(home)
    assert node.told == node.disk.damaged == []
    assert node.state_store.tip == home.tips[ROUNDS + 1 if checkpointed else ROUNDS]
    assert node.lineage.preferred_descendant(node.state_store.tip) == home.tips[ROUNDS + 2]


class _MovingDisk(FileDisk):
    """The anchor moves while a certificate is written."""

    moves: Callable[[], Awaitable[None]] | None = None

    async def append_certificate(self, run: bytes, number: int, certificate: bytes) -> None:
        await super().append_certificate(run, number, certificate)
        if self.moves is not None:
            await self.moves()


async def test_a_ledger_that_went_on_while_a_checkpoint_is_written_is_not_kept_under_the_older_tip(
    tmp_path: Path,
) -> None:
    """A node that was killed then settled the same certificate twice."""
    home = await CertifiedHome(tmp_path / "home", 2).write()
    disk = _MovingDisk(home.root, inline)
    node = Resumed(home, disk)
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
    assert await node.state_store.write([(3, pack_record([home.raws[2]]))], lambda: 0.0) == []
    kept = await disk.load_ledger(home.run)
    assert kept is not None
    assert (kept.tip, kept.weight) == (home.tips[2].hash, 7), (
        "the older pair, which the certificates on disk lead on from"
    )
    disk.moves = None
    assert await node.state_store.write([(4, pack_record([home.raws[3]]))], lambda: 0.0) == []
    kept = await disk.load_ledger(home.run)
    assert kept is not None
    assert kept.tip == home.tips[4].hash


async def test_certificates_that_cannot_be_read_for_a_moment_end_nothing(tmp_path: Path) -> None:
    """As on a medium that fails, or where rights were taken away: peers get none, and later all."""
    home = await CertifiedHome(tmp_path, ROUNDS).write()
    node = await resumed(home)
    path = home.folder / "certificates"
    _folder(path, 0.0)
    assert await readable_records(node.disk, home.run, 1, ROUNDS) == []
    assert await readable_certificates(node.disk, home.run, ROUNDS) == []
    with pytest.raises(UserError, match="DAMAGED"):
        await node.disk.certificates(home.run, 1, ROUNDS)
    assert ["Is a directory). It is tried again" in words for words in node.disk.damaged] == [True]
    path.rmdir()
    path.with_name("elsewhere").rename(path)
    assert await readable_certificates(node.disk, home.run, ROUNDS) == [home.raws[-1]]


async def test_a_node_that_joined_a_long_run_resumes_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It got the last certificates alone.

    Every restart of such a node ended with `DAMAGED`, and a repair set its whole run aside.
    """
    monkeypatch.setattr(certificate_shares, "TIPS_KEPT", 4)
    members = await CertifiedHome(tmp_path / "members", ROUNDS).write()
    joiner = CertifiedHome(tmp_path / "joiner", ROUNDS)
    node = Resumed(joiner)
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
    assert (await Resumed(joiner).state_store.resume()).startswith("beginning at genesis"), (
        "a power cut before its first checkpoint"
    )
    assert await node.state_store.write(records, lambda: 0.0) == []
    again = await resumed(joiner)
    assert again.state_store.tip == tip
    assert again.told == []
    assert not again.lineage.waiting
    assert repair(joiner.folder, joiner.signed) == []
    # It goes on with the members, and comes back once more.
    await members.append(FileDisk(members.root, inline), ROUNDS + 1)
    (made,) = again.lineage.add(members.raws[-1])
    assert again.lineage.preferred_descendant(again.state_store.tip) == made.tip == members.tips[-1]
    await again.disk.append_certificate(joiner.run, ROUNDS + 1, pack_record([members.raws[-1]]))
    once_more = await resumed(joiner)
    assert once_more.state_store.tip == tip
    assert once_more.lineage.preferred_descendant(tip) == members.tips[-1]
    assert repair(joiner.folder, joiner.signed) == []


async def test_work_that_an_old_ledger_does_not_know_is_dropped_for_that_reason(
    tmp_path: Path,
) -> None:
    """A home from a backup trains under a number that is certified already; the samples' cap has no
    part in it.
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
    assert [event.reason for event in node.told if isinstance(event, WorkDropped)] == [
        "certificate 3 counts later work of this node than its ledger on disk has"
    ]


async def test_work_is_dropped_where_certificates_that_may_count_it_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To offer it once more could count it twice."""
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
    assert [event.reason for event in node.told if isinstance(event, WorkDropped)] == [
        "a certificate that is no longer kept may count it"
    ]
