"""One fault and what came of it: a member of a whole cohort is struck at a step, and what the
others hold afterwards is compared and audited.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np

from daemon.swarm.lineage import LineageEntry
from protocol.averaging.outer_step import state_digest
from protocol.certificates.leader_order import leader_of, leader_order
from protocol.identity import short
from simulator.harness.audit import Audit
from simulator.harness.cohort import Cohort, MemberProcess
from simulator.harness.timings import certified, exchange_s, exchanging_s, noticed_s
from simulator.harness.wire import Certified, Dump, Dumped, Strike, StrikeReport

# Until everybody is in a certificate again: a process's start, a join, a download and two rounds.
WHOLE_S = 90.0
# Until the struck member comes to its step: a round, and a view that failed for another reason.
STRUCK_S = 60.0
# Until the survivors hold two certificates: all deadlines of a view with default settings, twice.
OVER_S = 150.0
LINES_TOLD = 40  # of each member, when a trial failed


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one fault.

    Times in seconds; those after the fault are of the slowest survivor, its training left out.
    """

    number: int  # the round it struck
    leader: bool  # whether it struck the view's leader
    late_s: float  # how far into the step
    agree: bool
    exact: bool
    false_successes: int
    after_s: float  # from the signal to the next certificate
    # From that certificate to the one after it.
    following_s: float
    # From the signal until the slowest survivor knew; 0 when nobody needed to before the next two
    # certificates.
    detection_s: float
    fault_free_s: tuple[float, ...]  # exchanges of the whole cohort before it
    # From being woken or started again to being in a certificate.
    back_s: float
    notes: tuple[str, ...] = ()


class TrialRunner:
    """A cohort with its audit, between faults."""

    def __init__(self, cohort: Cohort, root: Path) -> None:
        self.cohort = cohort
        self.audit = Audit(cohort.signed, cohort.elements)
        self._root = root
        self._dumps = 0
        self._looked = 0  # findings that were counted already

    async def begin(self) -> None:
        """Start everybody."""
        for member in self.cohort.members:
            await self.cohort.start(member)

    # ---------------------------------------------------------------- certificates

    def catch_up(self) -> None:
        """Audit what was said since the last call.

        Between exchanges: it takes a processor as long as an exchange does.
        """
        for index, line in self.cohort.take():
            self.audit.take(index, line)

    def whole(self) -> LineageEntry | None:
        """The certificate that all members hold and all contributed to, while they train on from
        it.
        """
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
        self.catch_up()
        step = self.audit.steps.get(tips.pop())
        return (
            step
            if step is not None
            and set(step.certificate.listed) == {member.peer for member in members}
            else None
        )

    async def until_whole(self) -> LineageEntry:
        """Wait for everybody to be in one certificate. Raises `Unreachable`."""
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
        """Strike the next round's leader, or the `pick`-th of the others, and see it through until
        the cohort is whole again.
        """
        cohort = self.cohort
        step = await self.until_whole()
        victim = self._choose(step, leader=leader, pick=pick)
        survivors = [member for member in cohort.members if member is not victim]
        number = step.tip.number + 1
        command = msgspec.structs.replace(command, number=number)
        for member in survivors:
            self._dumps += 1
            cohort.tell(member, Dump(path=str(self._root / f"dump-{self._dumps}"), number=number))
        began = len(victim.lines)
        cohort.tell(victim, command)
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
                len(certified(cohort.said(member), since)) >= 2 and self._dumped(member, number)
                for member in survivors
            ),
            f"the survivors of {command.kind} in {command.step} hold two certificates",
            OVER_S,
        )
        self.catch_up()
        apart, wrong = (
            self._disagreements(survivors, number, since),
            self._inexact(survivors, since),
        )
        fault_free = self._fault_free(number)
        after = [
            exchanging_s(cohort.said(member), since, certified(cohort.said(member), since)[0].at_s)
            for member in survivors
        ]
        following = [
            exchanging_s(
                cohort.said(member),
                *(line.at_s for line in certified(cohort.said(member), since)[:2]),
            )
            for member in survivors
        ]
        detection = [noticed_s(cohort.said(member), since, victim.peer) for member in survivors]
        back_s = await self._bring_back(victim)
        false = self._false_successes()
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
        """By the rule that the members go by: the parent certificate's members, ordered by a hash."""
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
        return certified(cohort.said(victim), since)[-1].at_s - since if step else 0.0

    def _dumped(self, member: MemberProcess, number: int) -> Dumped | None:
        return next(
            (
                line
                for line in self.cohort.said(member)
                if isinstance(line, Dumped) and line.number >= number
            ),
            None,
        )

    # ---------------------------------------------------------------- judging

    def _disagreements(
        self, survivors: list[MemberProcess], number: int, since: float
    ) -> list[str]:
        """Where survivors differ: at one number by certificate, at one certificate by the bytes of
        their anchors.
        """
        notes: list[str] = []
        by_number: dict[int, set[str]] = {}
        by_hash: dict[str, set[str]] = {}
        for member in survivors:
            for line in certified(self.cohort.said(member), since, with_passed=True):
                by_number.setdefault(line.number, set()).add(line.hash)
                if line.state:
                    by_hash.setdefault(line.hash, set()).add(line.state)
        notes += [
            f"survivors hold {len(hashes)} different certificates {at}"
            for at, hashes in by_number.items()
            if len(hashes) > 1
        ]
        notes += [
            f"survivors hold {len(states)} different states of {name[:12]}"
            for name, states in by_hash.items()
            if len(states) > 1
        ]
        dumps: dict[str, list[bytes]] = {}
        for member in survivors:
            dumped = self._dumped(member, number)
            assert dumped is not None
            dumps.setdefault(dumped.hash, []).append(Path(dumped.path).read_bytes())
        notes += [
            f"anchors of {name[:12]} differ"
            for name, copies in dumps.items()
            if any(copy != copies[0] for copy in copies)
        ]
        return notes

    def _inexact(self, survivors: list[MemberProcess], since: float) -> list[str]:
        """Where what a survivor holds is not what its certificate's list makes."""
        notes: list[str] = []
        for member in survivors:
            for line in certified(self.cohort.said(member), since, with_passed=True):
                finding = self.audit.findings.get(line.hash, "it was not audited")
                step = self.audit.steps.get(line.hash)
                if finding:
                    notes.append(f"certificate {line.number}: {finding}")
                elif (
                    step is not None
                    and line.state
                    and line.state != step.certificate.outcome.state.hex()
                ):
                    notes.append(
                        f"member {member.index} holds another state than certificate "
                        f"{line.number} names"
                    )
            for line in self.cohort.said(member):
                if (
                    isinstance(line, Dumped)
                    and line.at_s > since
                    and (wrong := self._wrong_dump(line))
                ):
                    notes.append(f"member {member.index}: {wrong}")
        return list(dict.fromkeys(notes))

    def _wrong_dump(self, dumped: Dumped) -> str:
        step = self.audit.steps.get(dumped.hash)
        values = np.fromfile(dumped.path, "<f4")
        anchor, momentum = values[: self.cohort.elements], values[self.cohort.elements :]
        if step is None or state_digest(anchor, momentum) != step.certificate.outcome.state:
            return f"the anchor it gave out is not that of certificate {dumped.number}"
        return ""

    def _false_successes(self) -> list[str]:
        """Certificates since the last call that are not what they list, or that anybody, the victim
        too, holds another state for.
        """
        self.catch_up()
        names = list(self.audit.findings)
        new, self._looked = names[self._looked :], len(names)
        false = {name: self.audit.findings[name] for name in new if self.audit.findings[name]}
        for member in self.cohort.members:
            for line in certified(self.cohort.said(member), 0.0):
                step = self.audit.steps.get(line.hash)
                if line.hash in new and (
                    step is None or step.certificate.outcome.state.hex() != line.state
                ):
                    false.setdefault(line.hash, f"member {member.index} holds another state for it")
        return [f"certificate {name[:12]}: {finding}" for name, finding in false.items()]

    def _fault_free(self, before: int) -> tuple[float, ...]:
        """How long the exchanges of the rounds before `before` took, since everybody was back:
        offer to certificate, of the slowest member.
        """
        members = self.cohort.members
        everybody = {member.peer for member in members}
        took: list[float] = []
        for number in range(before - 1, 0, -1):
            lines = [
                line
                for member in members
                for line in self.cohort.said(member)
                if isinstance(line, Certified) and line.number == number
            ]
            names = {line.hash for line in lines}
            step = self.audit.steps.get(names.pop()) if len(names) == 1 else None
            if (
                step is None
                or set(step.certificate.listed) != everybody
                or step.certificate.outcome.view
            ):
                break
            seconds = [
                one
                for member in members
                if (one := exchange_s(self.cohort.said(member), number)) is not None
            ]
            if len(seconds) < len(members):
                break
            took.append(max(seconds))
        return tuple(took)

    def story(self) -> str:
        """The last lines of everybody, for a person who asks what happened."""
        parts: list[str] = []
        for member in self.cohort.members:
            parts.append(
                f"member {member.index} ({short(member.peer)}), life {member.life}, "
                f"{'stopped' if member.stopped else member.phase}"
            )
            for line in member.lines[-LINES_TOLD:]:
                fields = {
                    name: getattr(line, name)
                    for name in line.__struct_fields__
                    if name not in ("at_s", "raw", "seconds")
                }
                parts.append(f"  {line.at_s:.3f} {type(line).__name__} {fields}")
            parts.append(member.tail())
        return "\n".join(parts)


def _struck(member: MemberProcess, began: int) -> StrikeReport | None:
    """Its last words, among those it said after the first `began`."""
    return next((line for line in member.lines[began:] if isinstance(line, StrikeReport)), None)
