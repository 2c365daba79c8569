"""What a node of rules 4 does about other branches: `BranchPolicy` over a small fake lineage."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from msgspec.structs import replace

from daemon.services.training.native.state.branch_policy import (
    MERGE_WAIT_S,
    BranchPolicy,
    Course,
)
from daemon.services.training.native.state.held_store import HeldStore
from daemon.swarm.forks import Fork, Signers
from daemon.swarm.lineage import Lineage
from protocol.certificates.tip import Tip, genesis
from protocol.digest import Digest, digest
from protocol.membership.finality import FINAL_S
from protocol.membership.patience import Patience
from protocol.membership.record import MembershipRecord, MergedBranch
from protocol.membership.standing import Branch, BranchStep
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.medium import MemoryMedium

VOTERS = tuple(f"v{i}" for i in range(6))
RECORD = MembershipRecord(voters=VOTERS, tips=(digest(b"run"),))
ROOT = replace(genesis(digest(b"run")), record=RECORD)
OURS = replace(ROOT, hash=digest(b"ours"), number=5)
THEIRS = replace(ROOT, hash=digest(b"theirs"), number=4)


class FakeForks:
    """A fork on which `ours` and `theirs` voters stand."""

    def __init__(self, ours: int, theirs: int) -> None:
        self.signed: list[Signers] = []
        self.absorbed = False
        self._fork = Fork(
            ancestor=ROOT,
            first=_branch(OURS, VOTERS[:ours]),
            second=_branch(THEIRS, VOTERS[len(VOTERS) - theirs :]),
        )

    def of(self, first: Tip, second: Tip) -> Fork:
        return self._fork

    def signers(self, path: list[Any]) -> list[Signers]:
        return self.signed

    def has_absorbed(self, other: Tip, tip: Tip) -> bool:
        return self.absorbed


class FakeLineage:
    """The parts of a lineage that the policy asks."""

    def __init__(self, ours: int, theirs: int) -> None:
        self.forks = FakeForks(ours, theirs)
        self.followed = ""
        self.own: list[Any] = []
        self.known: dict[Digest, Tip] = {}

    def path(self, old: Tip, new: Tip) -> list[Any]:
        return self.own

    def tip(self, name: Digest) -> Tip | None:
        return self.known.get(name)

    def descends(self, new: Tip, old: Tip) -> bool:
        return new.hash == old.hash

    def follows(self, tip: Tip) -> bool:
        return bool(self.followed) and tip.hash.hex().startswith(self.followed)


def _branch(tip: Tip, voters: tuple[str, ...]) -> Branch:
    return Branch(tip=tip.hash, steps=(BranchStep(weight=10, votes=frozenset(voters)),))


class Certified:
    """A certificate of the node's own branch."""

    hash = OURS.hash
    outcome = type("Outcome", (), {"parents": (ROOT.hash,)})


def policy(ours: int, theirs: int) -> tuple[BranchPolicy, FakeLineage, list[str]]:
    lineage, warned = FakeLineage(ours, theirs), []
    made = BranchPolicy(
        cast(Lineage, lineage),
        held_store(lineage, MemoryMedium()),
        lambda code, message: warned.append(f"{code} {message}"),
    )
    return made, lineage, warned


def held_store(lineage: FakeLineage, medium: MemoryMedium, wall_clock_s: float = 0.0) -> HeldStore:
    return HeldStore(
        run=ROOT.hash,
        disk=MemoryDisk(medium),
        lineage=cast(Lineage, lineage),
        wall_clock_s=lambda: wall_clock_s,
        warn=lambda code, message: None,
    )


def patience(since: float = 0.0) -> Patience:
    return Patience(since=since, grace_s=100.0, voters=len(VOTERS))


@pytest.mark.parametrize(
    ("ours", "theirs", "course"),
    [
        (4, 2, Course.ABSORB),
        (3, 3, Course.MEET),
        (4, 0, Course.IGNORE),
        # The other branch is preferred: its merge is awaited first.
        (2, 4, Course.IGNORE),
    ],
)
def test_branch_policy_goes_by_the_voters_on_each_branch(
    ours: int, theirs: int, course: Course
) -> None:
    assert policy(ours, theirs)[0].course(OURS, THEIRS, patience(), 1.0) is course


def test_branch_policy_follows_a_preferred_branch_without_a_merge_after_a_while() -> None:
    made, lineage, _ = policy(2, 4)
    assert made.course(OURS, THEIRS, patience(), 10.0) is Course.IGNORE
    assert made.course(OURS, THEIRS, patience(), 10.0 + MERGE_WAIT_S) is Course.FOLLOW
    # A degraded certificate on the way needs patience.
    lineage.forks.signed = [Signers(voters=6, signers=2)]
    assert made.course(OURS, THEIRS, patience(99.0), 10.0 + MERGE_WAIT_S) is Course.IGNORE


def test_branch_policy_follows_at_once_what_merged_a_part_of_its_own_branch() -> None:
    made, lineage, _ = policy(2, 4)
    lineage.forks.absorbed = True
    assert made.course(OURS, THEIRS, patience(), 1.0) is Course.FOLLOW


def test_branch_policy_absorbs_a_voter_once_in_a_while() -> None:
    merged = (MergedBranch(number=3, stood=(VOTERS[-1],)),)
    spent = replace(OURS, record=replace(RECORD, merged=merged))
    made, _, _ = policy(4, 2)
    assert made.course(spent, THEIRS, patience(), 1.0) is Course.IGNORE


def test_branch_policy_stays_on_a_branch_held_for_a_day_and_names_the_way_out() -> None:
    made, lineage, warned = policy(2, 4)
    lineage.own = [Certified()]
    made.adopted(OURS, 0.0)
    made.course(OURS, THEIRS, patience(), FINAL_S - MERGE_WAIT_S - 1.0)
    assert made.course(OURS, THEIRS, patience(), FINAL_S - 1.0) is Course.FOLLOW
    for _ in range(2):
        assert made.course(OURS, THEIRS, patience(), FINAL_S) is Course.IGNORE
    assert len(warned) == 1
    assert f"hypergpud run follow {THEIRS.hash.hex()[:12]}" in warned[0]
    lineage.followed = THEIRS.hash.hex()[:12]
    assert made.course(OURS, THEIRS, patience(), FINAL_S) is Course.FOLLOW


def test_branch_policy_stays_where_the_nodes_owner_wants_it() -> None:
    made, lineage, _ = policy(2, 4)
    lineage.followed = OURS.hash.hex()[:12]
    assert made.course(OURS, THEIRS, patience(), 1.0 + MERGE_WAIT_S) is Course.IGNORE
    assert made.course(OURS, THEIRS, patience(), 1e9) is Course.IGNORE


async def test_branch_policy_stays_on_a_branch_held_for_a_day_over_a_restart() -> None:
    """The hours between two lives count, and so do those of every life."""
    lineage, medium, warned = FakeLineage(2, 4), MemoryMedium(), []
    lineage.own = [Certified()]
    lives = [(1e9, FINAL_S / 2), (1e9 + FINAL_S / 2, 0.0), (1e9 + FINAL_S, 0.0)]
    courses = []
    for wall_clock_s, later in lives:
        held = held_store(lineage, medium, wall_clock_s)
        await held.resume(OURS)
        await held.write()
        made = BranchPolicy(cast(Lineage, lineage), held, lambda code, message: warned.append(code))
        now = trio.current_time()
        made.course(OURS, THEIRS, patience(now - 1000.0), now - MERGE_WAIT_S)
        courses.append(made.course(OURS, THEIRS, patience(now - 1000.0), now + later / 2))
    assert courses == [Course.FOLLOW, Course.FOLLOW, Course.IGNORE]
    assert warned == ["FINAL"]


async def test_held_store_forgets_the_times_of_a_branch_that_the_node_left() -> None:
    lineage, medium = FakeLineage(2, 4), MemoryMedium()
    held = held_store(lineage, medium, 1e9)
    await held.resume(OURS)
    lineage.known = {OURS.hash: OURS}
    held.adopted(THEIRS, trio.current_time())
    assert not held.has_final([OURS.hash], trio.current_time() + 2 * FINAL_S)
    assert held.has_final([THEIRS.hash], trio.current_time() + FINAL_S)
    await held.write()
    assert [one.certificate for one in medium.held[ROOT.hash]] == [THEIRS.hash]


async def test_held_store_reports_a_full_disk_and_writes_later() -> None:
    warned: list[str] = []
    medium = MemoryMedium(capacity_bytes=0.0)
    held = HeldStore(
        run=ROOT.hash,
        disk=MemoryDisk(medium),
        lineage=cast(Lineage, FakeLineage(2, 4)),
        wall_clock_s=lambda: 1e9,
        warn=lambda code, message: warned.append(f"{code} {message}"),
    )
    await held.resume(OURS)
    await held.write()
    assert len(warned) == 1
    assert warned[0].startswith("DISK_FULL the times of adoption were not written")
    medium.capacity_bytes = float("inf")
    await held.write()
    assert medium.held[ROOT.hash][0].since_s == pytest.approx(1e9)
