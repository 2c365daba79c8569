"""One finding of the doctor."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["ok", "warning", "blocked", "unknown"]
"""`blocked` keeps the node from working; `unknown` could not be measured here."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, what was seen, and what to do. `fix` is empty where nothing is wrong."""

    what: str
    verdict: Verdict
    evidence: str
    fix: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, in the order in which a start would meet them."""

    findings: tuple[Finding, ...]

    @property
    def is_blocked(self) -> bool:
        """Whether anything keeps the node from working."""
        return any(finding.verdict == "blocked" for finding in self.findings)
