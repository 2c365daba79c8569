"""A peer's side of the conversation, whatever engine it drives."""

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
# Before the common moment: a sleep wakes up late, a loop does not.
SPIN_S = 0.0005


class DriverSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One peer."""

    engine: str
    codec: str
    index: int
    peers: int
    elements: int
    host: str
    device: str  # the network device that carries `host`
    # Members of a row at most, where the engine knows rows.
    row: int = 64
    # Where an engine that finds its peers by itself begins.
    join: str = ""


class AveragingFailure(Exception):
    """The engine gave the round up, or says itself that its result is not the mean of all."""


class GroupMissing(AveragingFailure):
    """The peers did not find each other, so there was nothing to time."""


class Driver(Protocol):
    """An engine in one peer."""

    async def info(self) -> str:
        """What the others need to find us."""

    async def meet(self, infos: tuple[str, ...]) -> None:
        """All are up."""

    async def prepare(self, number: int, vector: Vector) -> None:
        """Whatever comes before averaging and is not part of it.

        `vector` stays as it is until the round is over.
        """

    async def average(self) -> None:
        """What is timed: from the vector in memory to the mean in memory.

        Raises `AveragingFailure`.
        """

    async def result(self) -> Vector:
        """The mean, shape (elements,)."""


class CommandPipe:
    """Lines on the two pipes. Whatever a library prints goes to the log."""

    def __init__(self) -> None:
        self._output = os.dup(1)
        self._input = os.fdopen(os.dup(0), "rb")
        os.dup2(2, 1)

    def next(self) -> Command | None:
        """The next command; None when the conductor is gone. Blocks."""
        line = self._input.readline()
        return decode_command(line) if line.endswith(b"\n") else None

    def say(self, line: PeerLine) -> None:
        data = memoryview(encode(line))
        while data:
            data = data[os.write(self._output, data) :]


async def serve(
    talk: CommandPipe,
    settings: DriverSettings,
    driver: Driver,
    following: Callable[[], Awaitable[Command | None]],
) -> None:
    """Until the conductor is gone. `following` gives the next command."""
    own = vector_of(settings.index, settings.elements)
    mean = exact_mean(settings.peers, settings.elements)
    vector = np.empty_like(own)
    number = 0
    talk.say(PeerListens(info=await driver.info()))
    while (command := await following()) is not None:
        match command:
            case MeetPeers(infos=infos):
                await driver.meet(infos)
                talk.say(Acknowledged())
            case PrepareRound(number=number):
                np.multiply(own, scale_of(number), out=vector)
                await driver.prepare(number, vector)
                talk.say(Acknowledged())
            case StartRound(at_s=at_s):
                talk.say(await _go(driver, at_s))
            case CheckMean():
                result = await driver.result()
                error = float(np.max(np.abs(result - mean * scale_of(number))))
                talk.say(
                    MeanChecked(
                        max_error=error if math.isfinite(error) else None,
                        result=digest(result.data.cast("B")).hex(),
                    )
                )


async def _go(driver: Driver, at_s: float) -> RoundDone:
    time.sleep(max(0.0, at_s - SPIN_S - time.monotonic()))  # noqa: ASYNC251  # nothing else may run here until the common moment
    while (began := time.monotonic()) < at_s:
        pass
    failure, grouped = "", True
    try:
        await driver.average()
    except AveragingFailure as failed:
        failure, grouped = str(failed), not isinstance(failed, GroupMissing)
    return RoundDone(began_s=began, ended_s=time.monotonic(), failure=failure, grouped=grouped)


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits: the loop above, for engines that block."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("a blocking driver waited for an event loop")


def die_with_parent() -> None:
    """The kernel ends this process when the thread that started it ends."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
