"""A peer's side of the protocol with the conductor, for any engine."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec
import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.digest import digest
from simulator.bench.allreduce.vectors import exact_mean, scale_of, vector_of
from simulator.bench.allreduce.wire import (
    Acknowledged,
    CheckMean,
    Command,
    MeanChecked,
    MeetPeers,
    PeerLine,
    PeerListens,
    PrepareRound,
    RoundDone,
    StartRound,
    decode_command,
    encode,
)

PR_SET_PDEATHSIG = 1  # prctl(2)
# Before the common start: a sleep wakes up late, a loop does not.
SPIN_S = 0.0005


class DriverSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one peer."""

    engine: str
    codec: str
    index: int
    peers: int
    elements: int
    host: str
    # The network device that carries `host`.
    device: str
    # The largest group, where the engine knows groups.
    max_group: int = 64
    # The address at which an engine that finds its peers by itself begins.
    join: str = ""


class AveragingFailure(Exception):
    """The engine gave the round up, or reports that its result is not the mean of all peers."""


class GroupMissing(AveragingFailure):
    """The peers did not find each other, so there was nothing to time."""


class Driver(Protocol):
    """An engine in one peer."""

    async def info(self) -> str:
        """The text that the others need to find this peer."""

    async def meet(self, infos: tuple[str, ...]) -> None:
        """Meet the others: all peers are up."""

    async def prepare(self, number: int, vector: Vector) -> None:
        """Do what comes before averaging and is not timed.

        `vector` does not change before the round is over.
        """

    async def average(self) -> None:
        """Do what is timed: from the vector in memory to the mean in memory.

        Raises:
            AveragingFailure: When the engine gave up or its result is not the mean.
        """

    async def result(self) -> Vector:
        """The mean, shape (elements,)."""


class CommandPipe:
    """The lines on the two pipes. The output of libraries goes to the log."""

    def __init__(self) -> None:
        self._output = os.dup(1)
        self._input = os.fdopen(os.dup(0), "rb")
        os.dup2(2, 1)

    def next(self) -> Command | None:
        """Read the next command. Blocks. None when the conductor is gone."""
        line = self._input.readline()
        return decode_command(line) if line.endswith(b"\n") else None

    def send(self, line: PeerLine) -> None:
        data = memoryview(encode(line))
        while data:
            data = data[os.write(self._output, data) :]


async def serve(
    pipe: CommandPipe,
    settings: DriverSettings,
    driver: Driver,
    following: Callable[[], Awaitable[Command | None]],
) -> None:
    """Carry out commands until the conductor is gone. `following` reads the next command."""
    own = vector_of(settings.index, settings.elements)
    mean = exact_mean(settings.peers, settings.elements)
    vector = np.empty_like(own)
    number = 0
    pipe.send(PeerListens(info=await driver.info()))
    while (command := await following()) is not None:
        match command:
            case MeetPeers(infos=infos):
                await driver.meet(infos)
                pipe.send(Acknowledged())
            case PrepareRound(number=number):
                np.multiply(own, scale_of(number), out=vector)
                await driver.prepare(number, vector)
                pipe.send(Acknowledged())
            case StartRound(at_s=at_s):
                pipe.send(await _go(driver, at_s))
            case CheckMean():
                result = await driver.result()
                error = float(np.max(np.abs(result - mean * scale_of(number))))
                pipe.send(
                    MeanChecked(
                        max_error=error if math.isfinite(error) else None,
                        result=digest(result.data.cast("B")).hex(),
                    )
                )


async def _go(driver: Driver, at_s: float) -> RoundDone:
    time.sleep(max(0.0, at_s - SPIN_S - time.monotonic()))  # noqa: ASYNC251
    while (began := time.monotonic()) < at_s:
        pass
    failure, grouped = "", True
    try:
        await driver.average()
    except AveragingFailure as failed:
        failure, grouped = str(failed), not isinstance(failed, GroupMissing)
    return RoundDone(began_s=began, ended_s=time.monotonic(), failure=failure, grouped=grouped)


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits: `serve`, for engines that block."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("a blocking driver waited for an event loop")


def die_with_parent() -> None:
    """Make the kernel end this process when the thread that started it ends."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
