"""Four real hivemind members: one is struck in mid-round, and the others are compared."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import trio

from daemon.children.messages import CommandDone
from daemon.services.training.hivemind.messages import (
    AverageVector,
    CommandFailed,
    ConnectPeer,
    HivemindReport,
    MemberInfo,
    VectorAveraged,
)
from daemon.services.training.hivemind.policy import averager_settings
from daemon.services.training.hivemind.process import HivemindLost, HivemindProcess
from daemon.services.training.hivemind.settings import AveragerSettings, PeerSettings
from protocol.averaging.vector_layout import Vector
from protocol.errors import Unreachable
from protocol.run.manifest import Manifest, seal
from simulator.harness.content import samples_of, vector_of
from simulator.harness.hivemind_member import STRIKE_FILE, HivemindStrike
from simulator.harness.steps import Kind, Step

MODULE = "simulator.harness.hivemind_member"
# Four imports of torch at once.
UP_S = 180.0
# To form a group: matchmaking among four takes 0.1 to 1 s.
FIND_S = 20.0
# After the survivors' last answer, until the victim reaches its step.
STRUCK_S = 10.0
# Attempts at a whole fault-free round before the cohort is given up.
ATTEMPTS = 5
TOLERANCE = 1e-5
"""The largest difference at which two tensors, or a tensor and its mean, count as equal.

Values are below 1. hivemind adds in the order of arrival and distributes differences, and rounding
moves results some 1e-7 apart even without a fault. Bit for bit, members would never agree.
"""


class HivemindTrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one fault, from the survivors' answers and tensors."""

    # All survivors hold one mean, or all report a failure and hold what they gave.
    agree: bool
    # All survivors report a success and hold the mean of the members that they name.
    exact: bool
    successes: int
    false_successes: int
    # False successes in which hivemind's own counts show a hole. hivemind does not report these
    # counts.
    seen_false: int
    after_s: float
    late_s: float
    fault_free_s: float
    notes: tuple[str, ...]


def bench_settings(seed: int) -> AveragerSettings:
    """The engine's own timeouts for a run with default settings."""
    signed = seal(Manifest(name="faults", task="content", seed=seed, engine="hivemind"))
    return averager_settings(signed.run, signed.open())


class HivemindCohort:
    """The members. All are up once `whole` has returned."""

    def __init__(
        self, processes: Sequence[HivemindProcess], root: Path, elements: int, seed: int
    ) -> None:
        self.processes, self._root, self._elements, self._seed = processes, root, elements, seed
        self._stretch = 0
        self._fault_free_s = 0.0
        self._met: dict[int, int] = {}

    async def _ready(self) -> None:
        """Wait until all members are up and know each other."""
        with trio.move_on_after(UP_S) as timeout:
            for process in self.processes:
                await process.up()
        if timeout.cancelled_caught:
            raise Unreachable(f"not all hivemind processes were up within {UP_S:.0f} s")
        first, *others = self.processes
        for index, process in enumerate(others, 1):
            life = first.starts * 1000 + process.starts
            if self._met.get(index) != life:
                if not isinstance(
                    await process.ask(lambda number: ConnectPeer(id=number, maddrs=first.maddrs)),
                    CommandDone,
                ):
                    raise Unreachable(f"hivemind member {index} does not reach member 0")
                self._met[index] = life

    async def _round(
        self, victim: int | None = None
    ) -> tuple[list[HivemindReport | None], list[Vector], list[float]]:
        """Play one round of all members, which ends when all but `victim` have answered.

        Returns the answers (None for a member that died), what each gave, and when each answered.
        """
        self._stretch += 1
        given = [
            vector_of(self._seed, index, 0, self._stretch, self._elements)
            for index in range(len(self.processes))
        ]
        answers: list[HivemindReport | None] = [None] * len(self.processes)
        at = [0.0] * len(self.processes)

        async def take_part(index: int, process: HivemindProcess, scope: trio.CancelScope) -> None:
            process.vector[:] = given[index]
            said = MemberInfo(
                peer=str(index),
                number=self._stretch,
                samples=samples_of(index),
                loss=None,
                sketch=(),
            )
            with suppress(HivemindLost):
                answers[index] = await process.ask(
                    lambda number: AverageVector(
                        id=number,
                        weight=float(samples_of(index)),
                        group_size=len(self.processes),
                        find_s=FIND_S,
                        info=said,
                    )
                )
            at[index] = time.monotonic()
            if all(answer is not None for other, answer in enumerate(answers) if other != victim):
                scope.cancel()  # A stopped member never answers.

        async with trio.open_nursery() as nursery:
            for index, process in enumerate(self.processes):
                nursery.start_soon(take_part, index, process, nursery.cancel_scope)
        return answers, given, at

    async def whole(self) -> None:
        """Play a round without a fault, in which all members are whole and exact.

        Raises:
            Unreachable: When that does not succeed.
        """
        why = ""
        for _ in range(ATTEMPTS):
            try:
                await self._ready()
            except HivemindLost as lost:
                why = str(lost)
                await trio.sleep(1.0)
                continue
            answers, given, _ = await self._round()
            everybody = range(len(self.processes))
            good = [
                answer
                for index, answer in enumerate(answers)
                if isinstance(answer, VectorAveraged)
                and len(answer.members) == len(self.processes)
                and _apart(self.processes[index].vector, _mean(given, everybody)) <= TOLERANCE
            ]
            if len(good) == len(self.processes):
                self._fault_free_s = max(answer.all_reduce_s for answer in good)
                return
            why = "; ".join(
                answer.why if isinstance(answer, CommandFailed) else type(answer).__name__
                for answer in answers
            )
        raise Unreachable(f"no whole round of hivemind's in {ATTEMPTS} attempts: {why}")

    async def strike(
        self, kind: Kind, step: Step, after_s: float, victim: int
    ) -> HivemindTrialResult:
        """Strike a member, and judge what the survivors hold. Then the victim is started again."""
        await self.whole()
        report = self._root / f"struck-{self._stretch}"
        folder, pid = Path(self.processes[victim].folder), self.processes[victim].pid
        order = HivemindStrike(kind=kind, step=step, after_s=after_s, report=str(report))
        (folder / STRIKE_FILE).write_bytes(msgspec.json.encode(order))
        answers, given, at = await self._round(victim)
        with trio.move_on_after(STRUCK_S):
            # The victim may reach the last step only after the others are through.
            while not report.exists():
                await trio.sleep(0.05)
        if not report.exists():
            raise Unreachable(f"hivemind member {victim} never came to {step}")
        struck_s = float(report.read_text(encoding="ascii"))
        survivors = [index for index in range(len(self.processes)) if index != victim]
        held = {index: self.processes[index].vector.copy() for index in survivors}
        if kind == "stop" and pid is not None:
            # A member that slept through its round is started again: what it would do is not tested
            # here.
            os.killpg(pid, signal.SIGKILL)
        return self._judge(
            survivors,
            answers,
            given,
            held,
            max(0.0, max(at[index] for index in survivors) - struck_s),
            after_s,
        )

    def _judge(
        self,
        survivors: list[int],
        answers: list[HivemindReport | None],
        given: list[Vector],
        held: dict[int, Vector],
        after_s: float,
        late_s: float,
    ) -> HivemindTrialResult:
        notes, false, seen, successes = [], 0, 0, 0
        for index in survivors:
            answer = answers[index]
            if not isinstance(answer, VectorAveraged):
                notes.append(f"{index} failed")
                continue
            successes += 1
            included = [int(said.peer) for said in answer.members]
            error = _apart(held[index], _mean(given, included))
            if error > TOLERANCE:
                false += 1
                seen += not answer.whole
                local = np.mean(np.abs(held[index] - given[index]) <= TOLERANCE)
                notes.append(
                    f"{index} reports a success with {len(included)} members, is off by "
                    f"{error:.2g}, {100 * local:.0f}% its own values"
                )
        tensors = list(held.values())
        same = all(_apart(tensor, tensors[0]) <= TOLERANCE for tensor in tensors)
        untouched = not successes and all(
            _apart(held[index], given[index]) <= TOLERANCE for index in survivors
        )
        return HivemindTrialResult(
            agree=untouched or (same and successes == len(survivors)),
            exact=successes == len(survivors) and not false,
            successes=successes,
            false_successes=false,
            seen_false=seen,
            after_s=after_s,
            late_s=late_s,
            fault_free_s=self._fault_free_s,
            notes=tuple(notes),
        )


def _mean(given: Sequence[Vector], included: Sequence[int]) -> Vector:
    """The exact mean by weight, summed in float64."""
    weights = np.array([samples_of(index) for index in included], np.float64)
    total = np.zeros(given[0].size, np.float64)
    for index, weight in zip(included, weights, strict=True):
        total += weight * given[index]
    mean: Vector = (total / weights.sum()).astype(np.float32)
    return mean


def _apart(one: Vector, other: Vector) -> float:
    return float(np.abs(one - other).max())


@asynccontextmanager
async def hivemind_cohort(
    count: int, root: Path, elements: int, seed: int
) -> AsyncIterator[HivemindCohort]:
    """Members that start now. All are gone when the block ends."""
    settings = msgspec.structs.replace(bench_settings(seed), group_size=count)
    make = partial(
        HivemindProcess, PeerSettings(), settings, elements, lambda _why: None, module=MODULE
    )
    processes = [make() for _ in range(count)]
    async with AsyncExitStack() as stack:
        for process in processes:
            await stack.enter_async_context(process.running())
        yield HivemindCohort(processes, root, elements, seed)
