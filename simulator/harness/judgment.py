"""Judges one fault from the members' lines: do the survivors agree, and is their state exact?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from protocol.averaging.outer_step import state_digest
from simulator.harness.audit import Audit
from simulator.harness.cohort import Cohort, MemberProcess
from simulator.harness.timings import certified, exchange_s
from simulator.harness.wire import Certified, Dumped


class TrialJudge:
    """Compares and audits what the members of a cohort hold."""

    def __init__(self, cohort: Cohort, audit: Audit) -> None:
        self._cohort, self._audit = cohort, audit
        # The number of findings that were counted already.
        self._judged = 0

    def catch_up(self) -> None:
        """Audit the lines since the last call.

        Call it between exchanges: it needs a processor for as long as an exchange does.
        """
        for index, line in self._cohort.drain():
            self._audit.receive(index, line)

    def dumped(self, member: MemberProcess, number: int) -> Dumped | None:
        return next(
            (
                line
                for line in self._cohort.lines_of(member)
                if isinstance(line, Dumped) and line.number >= number
            ),
            None,
        )

    def disagreements(self, survivors: list[MemberProcess], number: int, since: float) -> list[str]:
        """Where survivors differ: certificates of one number, or anchors of one certificate."""
        notes: list[str] = []
        by_number: dict[int, set[str]] = {}
        by_hash: dict[str, set[str]] = {}
        for member in survivors:
            for line in certified(self._cohort.lines_of(member), since, with_passed=True):
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
            dumped = self.dumped(member, number)
            assert dumped is not None
            dumps.setdefault(dumped.hash, []).append(Path(dumped.path).read_bytes())
        notes += [
            f"anchors of {name[:12]} differ"
            for name, copies in dumps.items()
            if any(copy != copies[0] for copy in copies)
        ]
        return notes

    def inexact(self, survivors: list[MemberProcess], since: float) -> list[str]:
        """Where a survivor's state is not what its certificate's list makes."""
        notes: list[str] = []
        for member in survivors:
            for line in certified(self._cohort.lines_of(member), since, with_passed=True):
                finding = self._audit.findings.get(line.hash, "it was not audited")
                step = self._audit.steps.get(line.hash)
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
            for dump in self._cohort.lines_of(member):
                if (
                    isinstance(dump, Dumped)
                    and dump.at_s > since
                    and (wrong := self._wrong_dump(dump))
                ):
                    notes.append(f"member {member.index}: {wrong}")
        return list(dict.fromkeys(notes))

    def _wrong_dump(self, dumped: Dumped) -> str:
        step = self._audit.steps.get(dumped.hash)
        values = np.fromfile(dumped.path, "<f4")
        anchor, momentum = values[: self._cohort.elements], values[self._cohort.elements :]
        if step is None or state_digest(anchor, momentum) != step.certificate.outcome.state:
            return f"the anchor it gave out is not that of certificate {dumped.number}"
        return ""

    def false_successes(self) -> list[str]:
        """New certificates that are not what they list, or for which a member holds another state.

        The victim counts too.
        """
        self.catch_up()
        names = list(self._audit.findings)
        new, self._judged = names[self._judged :], len(names)
        false = {name: self._audit.findings[name] for name in new if self._audit.findings[name]}
        for member in self._cohort.members:
            for line in certified(self._cohort.lines_of(member), 0.0):
                step = self._audit.steps.get(line.hash)
                if line.hash in new and (
                    step is None or step.certificate.outcome.state.hex() != line.state
                ):
                    false.setdefault(line.hash, f"member {member.index} holds another state for it")
        return [f"certificate {name[:12]}: {finding}" for name, finding in false.items()]

    def fault_free(self, before: int) -> tuple[float, ...]:
        """How long the exchanges of the rounds before `before` took, since all members were back.

        An exchange runs from the offer to the certificate of the slowest member.
        """
        members = self._cohort.members
        everybody = {member.peer for member in members}
        took: list[float] = []
        for number in range(before - 1, 0, -1):
            lines = [
                line
                for member in members
                for line in self._cohort.lines_of(member)
                if isinstance(line, Certified) and line.number == number
            ]
            names = {line.hash for line in lines}
            step = self._audit.steps.get(names.pop()) if len(names) == 1 else None
            if (
                step is None
                or set(step.certificate.listed) != everybody
                or step.certificate.outcome.view
            ):
                break
            seconds = [
                one
                for member in members
                if (one := exchange_s(self._cohort.lines_of(member), number)) is not None
            ]
            if len(seconds) < len(members):
                break
            took.append(max(seconds))
        return tuple(took)
