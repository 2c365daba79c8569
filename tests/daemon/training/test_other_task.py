"""Tests nodes of one run whose tasks differ: they never plan together, and both report why.

The tests run in virtual time.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial, wraps

import pytest
import trio

from daemon.services.training.native.engine import NativeEngine
from daemon.services.training.native.engine_context import NodePorts, engine_context
from daemon.swarm.task_agreement import (
    MAX_RECORDED,
    PROTOCOL,
    RECORDED_S,
    TaskAgreement,
    fetch_task,
    serve_task,
)
from protocol.errors import PeerFault
from protocol.identity import Signer
from protocol.journal import (
    InputRefused,
    JournalEvent,
    Planned,
    RoundCertified,
    TaskDiffers,
)
from protocol.messages.envelope import sign
from protocol.messages.offer import TaskReady
from protocol.ports.byte_stream import ByteStream
from protocol.ports.offload import inline
from protocol.run.manifest import Manifest, RoundRules, seal
from protocol.run.task_digest import MAX_TASK_BYTES, TaskDigest, TensorContent, TensorPart
from simulator.fakes.clock import run_virtual
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.medium import MemoryMedium
from simulator.fakes.network import FakeNetwork
from simulator.fakes.swarm import FakeSwarm
from simulator.fakes.trainer import QuadraticTrainer
from tests.protocol.rounds import named


def virtual(story: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Return the story as a test in virtual time."""

    @wraps(story)
    def test(**given: object) -> None:
        run_virtual(partial(story, **given))

    return test


RUN = seal(Manifest(name="tasks", task="made up", round=RoundRules(seconds=4.0)))
ROUNDS_S = 60.0


class Node:
    """An engine over a fake network, and what the engine recorded."""

    def __init__(
        self, swarm: FakeSwarm, number: int, *, parameters: int = 64, version: int = 1
    ) -> None:
        self.events: list[JournalEvent] = []
        self.signer = Signer(bytes([number]) * 32)
        self.network = swarm.network(bytes([number]) * 32)
        self.trainer = QuadraticTrainer(
            seed=3, peer=self.signer.peer, parameters=parameters, version=version
        )
        self.engine = NativeEngine(
            context=engine_context(RUN, self.signer),
            ports=NodePorts(
                network=self.network,
                disk=MemoryDisk(MemoryMedium()),
                offload=inline,
                record=self.events.append,
            ),
            trainer=self.trainer,
            name=f"n{number}",
            serial=lambda: int(1e9 * trio.current_time()),
        )

    async def run(self) -> None:
        async with self.network.running():
            await self.engine.run()

    def of(self, kind: type[JournalEvent]) -> list[JournalEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def differences(self) -> dict[str, str]:
        return {
            event.peer: event.difference for event in self.events if isinstance(event, TaskDiffers)
        }


@asynccontextmanager
async def swarm_of() -> AsyncIterator[FakeSwarm]:
    swarm = FakeSwarm(random.Random(1))
    async with swarm.running():
        yield swarm


async def run_for(nodes: list[Node], seconds: float = ROUNDS_S) -> None:
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(node.run)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"version": 2}, "another version of simulated task"),
        ({"parameters": 128}, "of shape (128,), ours (64,)"),
    ],
)
@virtual
async def test_two_nodes_of_different_tasks_name_the_difference_on_both_sides_and_never_plan(
    other: dict[str, int], words: str
) -> None:
    async with swarm_of() as swarm:
        one, two = Node(swarm, 1), Node(swarm, 2, **other)
        await run_for([one, two])
    assert words in one.differences[two.signer.peer]
    assert one.signer.peer in two.differences
    for node in (one, two):
        assert node.of(Planned) == []
        assert node.of(RoundCertified) == []


@virtual
async def test_nodes_that_agree_go_on_and_ignore_the_one_that_differs() -> None:
    async with swarm_of() as swarm:
        one, two, odd = Node(swarm, 1), Node(swarm, 2), Node(swarm, 3, version=2)
        await run_for([one, odd, two])
    for node in (one, two):
        assert len(node.of(RoundCertified)) >= 5
        assert all(
            set(event.members) == {one.signer.peer, two.signer.peer}
            for event in node.of(Planned)
            if isinstance(event, Planned)
        )
        assert set(node.differences) == {odd.signer.peer}
    assert odd.of(RoundCertified) == []
    assert odd.of(Planned) == []
    assert set(odd.differences) == {one.signer.peer, two.signer.peer}


@virtual
async def test_an_offer_for_another_task_is_refused_even_if_the_beacon_names_ours() -> None:
    async with swarm_of() as swarm:
        one, two = Node(swarm, 1), Node(swarm, 2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_for, [one, two], 20.0)
            await trio.sleep(9.0)
            state = one.engine.state
            assert state is not None
            ready = TaskReady(
                parent=state.parent,
                view=state.view,
                number=state.number,
                seq=99,
                samples=1,
                contribution=named("work"),
                loss=None,
                fingerprint=named("certificate"),
                uplink_bps=0,
                downlink_bps=0,
                task=named("another task"),
            )
            two.engine.peers.messenger.send(one.signer.peer, sign(two.signer, RUN.run, ready))
    assert "other_task" in {
        event.reason for event in one.of(InputRefused) if isinstance(event, InputRefused)
    }


# ---------------------------------------------------------------- TaskAgreement


def task(*, sketch: float = 0.5, digest: bytes = b"a" * 32) -> TaskDigest:
    return TaskDigest(
        buffers=(
            TensorPart(
                name="sine",
                shape=(1,),
                dtype="float32",
                content=TensorContent(digest=digest, sketch=(sketch,)),
            ),
        )
    )


@asynccontextmanager
async def two_peers(theirs: TaskDigest | None) -> AsyncIterator[tuple[FakeNetwork, FakeNetwork]]:
    async with swarm_of() as swarm:
        here, there = swarm.network(b"h" * 32), swarm.network(b"t" * 32)
        serve_task(there, lambda: theirs)
        async with here.running(), there.running():
            yield here, there


@virtual
async def test_task_agreement_compares_another_name_of_the_same_task_once_for_all_peers() -> None:
    events: list[JournalEvent] = []
    agreement = TaskAgreement(events.append)
    agreement.begin(task())
    theirs = task(digest=b"b" * 32)
    compared: list[bytes] = []
    async with two_peers(theirs) as (here, there), trio.open_nursery() as nursery:
        nursery.start_soon(agreement.compare, here, lambda *_: None, compared.append)
        assert not agreement.heard(there.peer, theirs.name), (
            "the peer is accepted only after the comparison"
        )
        await trio.sleep(2)
        assert agreement.heard(there.peer, theirs.name)
        assert agreement.heard("somebody else", theirs.name)
        nursery.cancel_scope.cancel()
    assert compared == [theirs.name]
    assert events == []


@virtual
async def test_task_agreement_excludes_a_peer_whose_description_differs_from_its_beacon() -> None:
    """Neither the task of the beacon nor that of the description counts as ours."""
    events: list[JournalEvent] = []
    agreement = TaskAgreement(events.append)
    agreement.begin(task())
    async with two_peers(task()) as (here, there), trio.open_nursery() as nursery:
        nursery.start_soon(agreement.compare, here, lambda *_: None, lambda _: None)
        for _ in range(5):
            assert not agreement.heard(there.peer, named("made up"))
            await trio.sleep(20)
        nursery.cancel_scope.cancel()


@virtual
async def test_fetch_task_refuses_a_description_that_is_too_long() -> None:
    async with swarm_of() as swarm:
        here, there = swarm.network(b"h" * 32), swarm.network(b"t" * 32)

        async def endless(stream: ByteStream) -> None:
            await stream.send_all((MAX_TASK_BYTES + 1).to_bytes(4, "big"))
            await trio.sleep_forever()

        there.serve(PROTOCOL, endless)
        async with here.running(), there.running():
            with pytest.raises(PeerFault, match="are allowed"):
                await fetch_task(here, there.peer)


@virtual
async def test_task_agreement_limits_the_reports_about_many_keys_with_other_tasks() -> None:
    events: list[JournalEvent] = []
    agreement = TaskAgreement(events.append)
    agreement.begin(task())
    agreement._learn(task(sketch=9.0, digest=b"c" * 32))
    other = task(sketch=9.0, digest=b"c" * 32).name
    for _ in range(10):
        assert not any(agreement.heard(f"key {number}", other) for number in range(1000))
        await trio.sleep(1)
    assert len(events) == MAX_RECORDED
    await trio.sleep(RECORDED_S)
    assert not agreement.heard("key 999", other)
    assert len(events) == MAX_RECORDED + 1


@virtual
async def test_task_agreement_reports_a_peer_that_returns_with_our_task() -> None:
    events: list[JournalEvent] = []
    agreement = TaskAgreement(events.append)
    agreement.begin(task())
    await trio.lowlevel.checkpoint()
    agreement._learn(task(sketch=9.0, digest=b"c" * 32))
    assert not agreement.heard("attic", task(sketch=9.0, digest=b"c" * 32).name)
    assert not agreement.heard("attic", task(sketch=9.0, digest=b"c" * 32).name), (
        "one report for each change"
    )
    assert agreement.heard("attic", b""), "a peer whose worker is starting is accepted"
    assert agreement.heard("attic", task().name)
    assert [bool(event.difference) for event in events if isinstance(event, TaskDiffers)] == [
        True,
        False,
    ]


def test_task_agreement_of_an_observer_accepts_every_task() -> None:
    agreement = TaskAgreement(lambda _: pytest.fail("an observer must report nothing"))
    assert agreement.heard("attic", named("any"))
    assert agreement.refusal(named("any")) == ""
