"""Reports damaged files once each, in the event loop, whatever thread found the damage."""

from __future__ import annotations

import errno
import os
import shlex
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from protocol.digest import SHOWN_DIGITS, Digest
from protocol.errors import UserError
from protocol.ports.offload import Offload

# Further reports say nothing new.
MAX_REPORTS = 100

T = TypeVar("T")
ReportDamage = Callable[[str], None]


class DamageReports:
    """Collects reports of damage from all threads.

    `reported` lists the reports so far: which file, what was done with it, and what is lost.
    """

    def __init__(self, offload: Offload, report: ReportDamage) -> None:
        self.reported: list[str] = []
        self._offload, self._report = offload, report
        self._found: deque[str] = deque()

    def add(self, sentence: str) -> None:
        """Add a report, from any thread. `run` delivers it when its work is done."""
        self._found.append(sentence)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread, and deliver the reports that it added before returning."""
        try:
            return await self._offload(work)
        finally:
            while self._found:
                sentence = self._found.popleft()
                # A file that peers ask for may be found damaged every time.
                if sentence not in self.reported and len(self.reported) < MAX_REPORTS:
                    self.reported.append(sentence)
                    self._report(sentence)


def unreadable_run(home: Path, run: Digest, what: str, why: str) -> UserError:
    """Return `UserError("DAMAGED")` for a run that cannot be read.

    The advice is a command that works: it quotes the home, and names the run.
    """
    # Only the owner's permissions help where the system denies access.
    denied = os.strerror(errno.EACCES) in f"{what} {why}"
    rights = "let the user who runs this read it (chmod u+rwX, or chown), or "
    command = f"hypergpud --home {shlex.quote(str(home))} repair {run.hex()[:SHOWN_DIGITS]}"
    effect = (
        "sets aside what cannot be read and deletes nothing; the next start gets certificates and"
        " state from the run's members"
    )
    return UserError(
        "DAMAGED", what, why=why, fix=f"{rights if denied else ''}{command}   ({effect})"
    )
