"""Tests real hivemind processes: they average, exchange states, and end with their node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio

from daemon.children.messages import CommandDone
from daemon.services.training.hivemind.messages import (
    AverageVector,
    CommandFailed,
    ConnectPeer,
    DownloadState,
    MemberInfo,
    ShareState,
    StateDownloaded,
    VectorAveraged,
)
from daemon.services.training.hivemind.process import HivemindLost, HivemindProcess
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings
from tests.daemon.training.hivemind.processes import gone_within, group_of

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[4]
# hivemind splits so many elements into several parts.
ELEMENTS = 300_000
GONE_S = 10.0
SETTINGS = AveragerSettings(
    prefix="test", matchmaking_s=2.0, request_s=1.0, chunk_s=5.0, all_reduce_s=20.0
)

PARENT = """
import trio
from daemon.services.training.hivemind.process import HivemindProcess
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings

async def main():
    process = HivemindProcess(PeerSettings(), AveragerSettings(prefix="test"), 1000, print)
    async with process.running():
        await process.up()
        print(process.pid, process._current.sockets, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


INFO = MemberInfo(peer="none", number=0, samples=1, loss=None, sketch=())


def average(name: str, weight: float, number: int) -> AverageVector:
    info = MemberInfo(peer=name, number=0, samples=int(weight), loss=None, sketch=())
    return AverageVector(id=number, weight=weight, group_size=2, find_s=30.0, info=info)


async def test_two_processes_average_by_weight_and_one_downloads_the_others_state() -> None:
    lost: list[str] = []
    first, second = (
        HivemindProcess(PeerSettings(), SETTINGS, ELEMENTS, lost.append) for _ in range(2)
    )
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            for process in (first, second):
                await stack.enter_async_context(process.running())
            for process in (first, second):
                await process.up()
            assert first.maddrs
            assert isinstance(
                await second.ask(lambda number: ConnectPeer(id=number, maddrs=first.maddrs)),
                CommandDone,
            )
            assert isinstance(
                await second.ask(lambda number: ConnectPeer(id=number, maddrs=("nonsense",))),
                CommandFailed,
            )

            values = np.random.default_rng(1).random((2, ELEMENTS), dtype=np.float32)
            first.vector[:], second.vector[:] = values
            answers: dict[str, object] = {}

            async def take_part(name: str, process: HivemindProcess, weight: float) -> None:
                answers[name] = await process.ask(partial(average, name, weight))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(take_part, "first", first, 3.0)
                nursery.start_soon(take_part, "second", second, 1.0)
            for answer in answers.values():
                assert isinstance(answer, VectorAveraged)
                assert answer.whole
                assert answer.group == 2
                assert {(member.peer, member.samples) for member in answer.members} == {
                    ("first", 3),
                    ("second", 1),
                }
            mean = (3 * values[0].astype(np.float64) + values[1]) / 4
            for process in (first, second):
                np.testing.assert_allclose(process.vector, mean, atol=1e-6)

            first.anchor[:], first.momentum[:] = 0.5, -0.25
            assert isinstance(
                await first.ask(lambda number: ShareState(id=number, number=9)), CommandDone
            )
            got = await second.ask(lambda number: DownloadState(id=number))
            # The download fails until the sender's announcement has reached the DHT.
            while isinstance(got, CommandFailed):
                got = await second.ask(lambda number: DownloadState(id=number))
            assert isinstance(got, StateDownloaded)
            assert got.number == 9
            assert (second.anchor == 0.5).all()
            assert (second.momentum == -0.25).all()
    assert lost == []


async def test_a_process_that_dies_is_restarted_and_leaves_nothing_behind() -> None:
    lost: list[str] = []
    process = HivemindProcess(PeerSettings(), SETTINGS, 1000, lost.append)
    with trio.fail_after(60):
        async with process.running():
            await process.up()
            assert process.pid is not None
            old = process.pid
            assert "p2pd" in group_of(old).values()
            os.kill(old, signal.SIGKILL)
            with pytest.raises(HivemindLost, match=r"SIGKILL|ended|starting"):
                await process.ask(
                    lambda number: AverageVector(
                        id=number, weight=1.0, group_size=2, find_s=60.0, info=INFO
                    )
                )
            assert gone_within(old, GONE_S)
            await process.up()
            assert process.pid != old
            last = process.pid
    assert last is not None
    assert gone_within(last, GONE_S)
    assert len(lost) == 1
    assert "SIGKILL" in lost[0]


@contextmanager
def node_with_a_hivemind_process() -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            pid, sockets = parent.stdout.readline().split()
            yield parent, int(pid), Path(sockets)
        finally:
            parent.kill()


@pytest.mark.parametrize("stopped", [False, True])
def test_kill_9_of_the_node_leaves_neither_processes_nor_sockets(stopped: bool) -> None:
    """This holds even for a stopped group, which cannot notice the kill."""
    with node_with_a_hivemind_process() as (parent, pid, sockets):
        family = group_of(pid)
        # The process, its guard, its DHT, its averager, and hivemind's daemon.
        assert len(family) == 5
        assert "p2pd" in family.values()
        assert any(sockets.iterdir())
        assert os.getsid(pid) == pid
        if stopped:
            os.killpg(pid, signal.SIGSTOP)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert gone_within(pid, GONE_S)
        assert not sockets.exists()
