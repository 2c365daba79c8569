"""Tests the downloads of states, and the events that they send to the round machine."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
import trio
import trio.testing
from msgspec.structs import replace

from daemon.services.training.native.engine_context import engine_context
from daemon.services.training.native.state.downloads import ARRIVED_KEPT, Downloads
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from daemon.swarm.state_transfer import StateServer, serve_state
from protocol.averaging.outer_step import state_digest, state_leaves
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import inline
from protocol.ports.trainer import ParameterSpec, TaskInfo
from protocol.round.events import Event, StateReceived
from protocol.rules.versions import RULES_4
from protocol.run.manifest import seal
from protocol.run.manifest_versions import RULES_3
from simulator.fakes.clock import run_virtual
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.medium import MemoryMedium
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm
from tests.daemon.certified_home import vector
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, people

FOUR = people(4)
PARAMETERS = CHUNKS * CHUNK_ELEMENTS
INFO = TaskInfo(
    parameters=PARAMETERS,
    specs=(ParameterSpec(name="point", shape=(PARAMETERS,), init="zeros"),),
    dataset_size=1000,
    device="cpu",
    threads=1,
)


class Scene:
    """A node at certificate 1, a peer that serves other states, and a branch beside the node."""

    def __init__(self) -> None:
        self.lineage = Lineage(RUN, MANIFEST, CHUNKS)
        self.own = self._certified(Made(FOUR[:2]), 1)
        self.next = self._certified(Made(FOUR[:2], self.own.tip, seq=2), 2)
        self.other = self._certified(Made(FOUR[2:]), 3)
        # The other branch goes on.
        self.further = [self.other]
        for number in range(4, 4 + ARRIVED_KEPT):
            self.further.append(
                self._certified(Made(FOUR[2:], self.further[-1].tip, seq=number), number)
            )
        self.events: list[Event] = []
        swarm = FakeSwarm(random.Random(1))
        self.here: FakeNetwork = swarm.network(b"\0" * 32)
        self.there: FakeNetwork = swarm.network(b"\1" * 32)
        self.swarm = swarm
        disk = MemoryDisk(MemoryMedium())
        self.state_store = StateStore(
            context=engine_context(seal(MANIFEST), FOUR[0]),
            info=INFO,
            lineage=self.lineage,
            disk=disk,
            offload=inline,
            record=lambda _: None,
        )
        self.state_store.tip = self.own.tip
        self.downloads = Downloads(
            network=self.here,
            lineage=self.lineage,
            members=Members(self.here.peer, lambda _: None, lambda _: None),
            state_store=self.state_store,
            offload=inline,
            emit=self.events.append,
            record=lambda _: None,
            refuse=lambda *_: None,
        )
        # A running node learns the holders from beacons.
        self.downloads._holders = lambda _: [self.there.peer]  # type: ignore[method-assign]

    def _certified(self, made: Made, number: int) -> LineageEntry:
        made.vote = replace(made.vote, state=state_digest(vector(number, 0), vector(number, 1)))
        (step,) = self.lineage.add(made.raw())
        return step

    async def serve(self) -> None:
        """Let the peer serve the states of the next certificate and of the other branch."""
        disk = MemoryDisk(MemoryMedium())
        leaves = {}
        for number, step in ((2, self.next), *enumerate(self.further, start=3)):
            value, momentum = vector(number, 0), vector(number, 1)
            await disk.save_checkpoint(
                Checkpoint(
                    run=RUN,
                    tip=step.tip.hash,
                    number=step.tip.number,
                    anchor=value,
                    momentum=momentum,
                    inner=value[:0],
                )
            )
            leaves[step.tip.hash] = state_leaves(value, momentum)
        serve_state(self.there, StateServer(disk, leaves.get, lambda: PARAMETERS))


async def _live(network: FakeNetwork, *, task_status: trio.TaskStatus[None]) -> None:
    async with network.running():
        task_status.started()
        await trio.sleep_forever()


def test_downloads_report_whether_a_state_is_ahead_or_belongs_to_a_merge() -> None:
    """A node adopts a late state of its own branch. It may only merge with another branch."""
    scene = Scene()

    async def main() -> None:
        async with scene.swarm.running(), trio.open_nursery() as nursery:
            await scene.serve()
            for network in (scene.here, scene.there):
                await nursery.start(_live, network)
            await trio.sleep(2.0)
            for step in (scene.other, scene.next):
                # The second download finds the state complete.
                for _ in range(2):
                    assert await scene.downloads.fetch(step) == ""
            nursery.cancel_scope.cancel()

    run_virtual(main)
    received = [
        (event.certificate.hash, event.ahead)
        for event in scene.events
        if isinstance(event, StateReceived)
    ]
    assert received == [(scene.other.tip.hash, False)] * 2 + [(scene.next.tip.hash, True)] * 2


def test_downloads_report_a_state_ahead_even_if_the_lineage_forgot_its_certificate() -> None:
    """Strangers' certificates may replace the certificate during the download.

    The state arrives all the same, and the node has no other way ahead.
    """
    scene = Scene()

    async def main() -> None:
        async with scene.swarm.running(), trio.open_nursery() as nursery:
            await scene.serve()
            for network in (scene.here, scene.there):
                await nursery.start(_live, network)
            await trio.sleep(2.0)
            nursery.start_soon(scene.downloads.fetch, scene.next)
            await trio.testing.wait_all_tasks_blocked()
            scene.lineage._forget(scene.next.tip.hash)
            await trio.sleep(60.0)
            nursery.cancel_scope.cancel()

    run_virtual(main)
    assert [event.ahead for event in scene.events if isinstance(event, StateReceived)] == [True]


def test_downloads_keep_few_states_of_a_branch_that_is_never_merged() -> None:
    """Only the newest states stay.

    While the branch went on and each merge failed, each state used to stay: two vectors of the
    model for every round.
    """
    scene = Scene()

    async def main() -> None:
        async with scene.swarm.running(), trio.open_nursery() as nursery:
            await scene.serve()
            for network in (scene.here, scene.there):
                await nursery.start(_live, network)
            await trio.sleep(2.0)
            for step in scene.further:
                assert await scene.downloads.fetch(step) == ""
                assert scene.downloads.get(step.tip.hash) is not None
            nursery.cancel_scope.cancel()

    run_virtual(main)
    assert scene.downloads.arrived == {step.tip.hash for step in scene.further[-ARRIVED_KEPT:]}


@pytest.mark.parametrize("rules", [RULES_3, RULES_4])
def test_a_state_that_is_not_finite_is_refused_by_rules_4(
    monkeypatch: pytest.MonkeyPatch, rules: int
) -> None:
    """Its voters certified what nobody can train from."""

    original = vector

    def poisoned(number: int, index: int) -> Vector:
        made = original(number, index).copy()
        if (number, index) == (3, 1):
            made[-1] = np.nan
        return made

    monkeypatch.setattr(sys.modules[__name__], "vector", poisoned, raising=True)
    scene, failures = Scene(), []
    scene.downloads._manifest = replace(MANIFEST, rules=rules)

    async def main() -> None:
        async with scene.swarm.running(), trio.open_nursery() as nursery:
            await scene.serve()
            for network in (scene.here, scene.there):
                await nursery.start(_live, network)
            await trio.sleep(2.0)
            for step in (scene.other, scene.further[1]):
                failures.append(await scene.downloads.fetch(step))
            nursery.cancel_scope.cancel()

    run_virtual(main)
    wrong, right = failures
    assert right == ""
    assert ("values that are not finite" in wrong) == (rules == RULES_4)
