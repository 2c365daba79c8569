"""One fault and its result: a member is struck, and the others are compared and audited."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from daemon.swarm.ancestry import LineageEntry
from protocol.certificates.leader_order import leader_of, leader_order
from protocol.identity import short
from simulator.harness.audit import Audit
from simulator.harness.cohort import Cohort, MemberProcess
from simulator.harness.judgment import TrialJudge
from simulator.harness.timings import certified, exchanging_s, noticed_s
from simulator.harness.wire import Dump, Strike, StrikeReport

# Until all members are in one certificate again: a process start, a join, a download and two
# rounds.
WHOLE_S = 90.0
# Until the victim reaches its step: a round, and a view that failed for another reason.
STRUCK_S = 60.0
# Until the survivors hold two certificates: all deadlines of a view with default settings, twice.
OVER_S = 150.0
# Lines of each member that are shown when a trial failed.
LINES_SHOWN = 40


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one fault.

    Times are in seconds. Those after the fault are of the slowest survivor, without training.
    """

    # The round that was struck.
    number: int
    # Whether the victim led the view.
    leader: bool
    # How far into the step the strike came.
    late_s: float
    agree: bool
    exact: bool
    false_successes: int
    # From the signal to the next certificate.
    after_s: float
    # From that certificate to the one after it.
    following_s: float
    # From the signal until the slowest survivor knew; 0 when nobody needed to know before the next
    # two certificates.
    detection_s: float
    # Exchanges of the whole cohort before the fault.
    fault_free_s: tuple[float, ...]
    # From the victim's resumption or restart to its next certificate.
    back_s: float
    notes: tuple[str, ...] = ()


class TrialRunner:
    """A cohort with its audit, between faults."""

    def __init__(self, cohort: Cohort, root: Path) -> None:
        self.cohort = cohort
        self.audit = Audit(cohort.signed, cohort.elements)
        self._root = root
        self._dumps = 0
        self.judge = TrialJudge(cohort, self.audit)

    async def begin(self) -> None:
        """Start all members."""
        for member in self.cohort.members:
            await self.cohort.start(member)

    # ---------------------------------------------------------------- certificates

    def whole(self) -> LineageEntry | None:
        """The certificate that all members hold and contributed to, while they train on from it."""
        members = self.cohort.members
        tips = {
            member.tip.hash if member.tip and member.alive and not member.stopped else ""
            for member in members
        }
        if (
            len(tips) != 1
            or "" in tips
            or any(member.phase not in ("train", "adopt") for member in members)
        ):
            return None
        self.judge.catch_up()
        step = self.audit.steps.get(tips.pop())
        return (
            step
            if step is not None
            and set(step.certificate.listed) == {member.peer for member in members}
            else None
        )

    async def until_whole(self) -> LineageEntry:
        """Wait for all members to be in one certificate. Raises `Unreachable`."""
        found: list[LineageEntry] = []

        def look() -> bool:
            step = self.whole()
            if step is not None:
                found.append(step)
            return step is not None

        await self.cohort.until(look, "all members are in one certificate", WHOLE_S)
        return found[-1]

    # ---------------------------------------------------------------- a trial

    async def strike(self, command: Strike, *, leader: bool, pick: int) -> TrialResult:
        """Strike the next round's leader, or the `pick`-th other, and wait for recovery."""
        cohort = self.cohort
        step = await self.until_whole()
        victim = self._choose(step, leader=leader, pick=pick)
        survivors = [member for member in cohort.members if member is not victim]
        number = step.tip.number + 1
        command = msgspec.structs.replace(command, number=number)
        for member in survivors:
            self._dumps += 1
            cohort.send(member, Dump(path=str(self._root / f"dump-{self._dumps}"), number=number))
        began = len(victim.lines)
        cohort.send(victim, command)
        await cohort.until(
            lambda: _struck(victim, began) is not None,
            f"member {victim.index} comes to {command.step}",
            STRUCK_S,
        )
        struck = _struck(victim, began)
        assert struck is not None
        since = struck.at_s
        await cohort.until(
            lambda: all(
                len(certified(cohort.lines_of(member), since)) >= 2
                and self.judge.dumped(member, number)
                for member in survivors
            ),
            f"the survivors of {command.kind} in {command.step} hold two certificates",
            OVER_S,
        )
        self.judge.catch_up()
        apart, wrong = (
            self.judge.disagreements(survivors, number, since),
            self.judge.inexact(survivors, since),
        )
        fault_free = self.judge.fault_free(number)
        after = [
            exchanging_s(
                cohort.lines_of(member), since, certified(cohort.lines_of(member), since)[0].at_s
            )
            for member in survivors
        ]
        following = [
            exchanging_s(
                cohort.lines_of(member),
                *(line.at_s for line in certified(cohort.lines_of(member), since)[:2]),
            )
            for member in survivors
        ]
        detection = [noticed_s(cohort.lines_of(member), since, victim.peer) for member in survivors]
        back_s = await self._bring_back(victim)
        false = self.judge.false_successes()
        return TrialResult(
            number=struck.number,
            leader=struck.leads,
            late_s=struck.late_s,
            agree=not apart,
            exact=not wrong,
            false_successes=len(false),
            after_s=max(after),
            following_s=max(following),
            detection_s=max((seconds for seconds in detection if seconds is not None), default=0.0),
            fault_free_s=fault_free,
            back_s=back_s,
            notes=(*apart, *wrong, *false, *(self.audit.doubts if wrong or false else ())),
        )

    def _choose(self, step: LineageEntry, *, leader: bool, pick: int) -> MemberProcess:
        """Choose a victim by the members' own rule: the parent's members, ordered by a hash."""
        leads = leader_of(leader_order(step.tip.hash, step.tip.members), 0)
        chosen = [member for member in self.cohort.members if (member.peer == leads) is leader]
        return chosen[pick % len(chosen)]

    async def _bring_back(self, victim: MemberProcess) -> float:
        cohort = self.cohort
        since = time.monotonic()
        if victim.stopped:
            cohort.wake(victim)
        else:
            cohort.end(victim)
            await cohort.start(victim)
        step = await self.until_whole()
        return certified(cohort.lines_of(victim), since)[-1].at_s - since if step else 0.0

    def story(self) -> str:
        """The last lines of all members, for a person who asks what happened."""
        parts: list[str] = []
        for member in self.cohort.members:
            parts.append(
                f"member {member.index} ({short(member.peer)}), life {member.life}, "
                f"{'stopped' if member.stopped else member.phase}"
            )
            for line in member.lines[-LINES_SHOWN:]:
                fields = {
                    name: getattr(line, name)
                    for name in line.__struct_fields__
                    if name not in ("at_s", "raw", "seconds")
                }
                parts.append(f"  {line.at_s:.3f} {type(line).__name__} {fields}")
            parts.append(member.tail())
        return "\n".join(parts)


def _struck(member: MemberProcess, began: int) -> StrikeReport | None:
    """The victim's strike report among its lines after the first `began`."""
    return next((line for line in member.lines[began:] if isinstance(line, StrikeReport)), None)
