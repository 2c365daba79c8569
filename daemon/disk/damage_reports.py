"""What is found damaged on a disk: said once each, in the event loop, whatever thread found it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from protocol.ports.offload import Offload

MOST_REPORTS = 100  # more say nothing new

T = TypeVar("T")
ReportDamage = Callable[[str], None]


class DamageReports:
    """`told` lists what was said, in words: which file, what was done with it, what is lost."""

    def __init__(self, offload: Offload, report: ReportDamage) -> None:
        self.told: list[str] = []
        self._offload, self._report = offload, report
        self._found: deque[str] = deque()

    def found(self, words: str) -> None:
        """From any thread; said when the work that found it is done."""
        self._found.append(words)

    async def apart(self, work: Callable[[], T]) -> T:
        """`work` where it stops nobody. What it found damaged is said before it is answered."""
        try:
            return await self._offload(work)
        finally:
            while self._found:
                words = self._found.popleft()
                # What peers ask for may be found damaged every time.
                if words not in self.told and len(self.told) < MOST_REPORTS:
                    self.told.append(words)
                    self._report(words)
