"""The findings of `hypergpud doctor` as text."""

from __future__ import annotations

from daemon.cli.terminal.columns import wrapped
from daemon.cli.terminal.ink import Ink
from daemon.diagnosis.finding import Diagnosis

MARKS = {"ok": "✓", "warning": "!", "blocked": "✕", "unknown": "?"}
_STYLES = {"ok": "good", "warning": "warning", "blocked": "bad", "unknown": "dim"}
LABEL = 12
WIDTH = 110


def doctor_text(diagnosis: Diagnosis, color: bool, width: int = WIDTH) -> str:
    """One finding a line, its fix below it, and what follows from all of them."""
    ink = Ink(color)
    lines: list[str] = []
    for one in diagnosis.findings:
        mark = ink(_STYLES[one.verdict], MARKS[one.verdict])
        text = wrapped(one.evidence, min(width, WIDTH), LABEL)
        lines.append(f"{mark} {one.what:<{LABEL - 2}}{text}")
        if one.fix:
            lines.append(" " * LABEL + wrapped(f"fix: {one.fix}", min(width, WIDTH), LABEL))
    blocked = [one.what for one in diagnosis.findings if one.verdict == "blocked"]
    if blocked:
        lines.append(f"The node cannot work: {', '.join(blocked)}.")
    else:
        lines.append("Nothing here keeps the node from working. Others: hypergpud doctor --network")
    return "\n".join(lines)
