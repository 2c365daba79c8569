"""Figures that are paid or reported come from certificates, never from journal events."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
# Modules whose figures are paid, or reported to the chain or an oracle.
MODULES = sorted(
    path
    for folder in ("contracts", "daemon/chain", "daemon/oracle", "protocol/settlement")
    for path in (REPOSITORY / folder).glob("*.py")
)
# Events that these modules write. They read none.
WRITTEN = {"JournalEvent", "Warned", "ChainReport", "PeerRegistered", "RewardsReport"}
READING = {"add_listener", "decode_event", "fold", "StatusState", "status_at"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_figure_modules_read_no_journal_events(module: Path) -> None:
    tree = ast.parse(module.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert names & READING == set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "protocol.journal":
            assert {alias.name for alias in node.names} <= WRITTEN
