"""Names the files of a run in a home.

    <home>/runs/<run>/checkpoints/<number>-<tip>.safetensors    `checkpoint_file`
    <home>/runs/<run>/checkpoints/left/<number>-<tip>/          those of a branch that was left
    <home>/runs/<run>/ledger.safetensors                        `ledger_file`
    <home>/runs/<run>/ledger-mark                               the ledger's mark, in a `slots_file`
    <home>/runs/<run>/results/<number>-<state>.results          `result_files`
    <home>/runs/<run>/stands                                    view records, in a `slots_file`
    <home>/runs/<run>/held                                      times of adoption, in a `slots_file`
    <home>/runs/<run>/certificates                              `chain_file`
    <home>/runs/<run>/proofs/                                   `proof_files`

These names are part of the format of a home: a later version opens the homes of an earlier one.
"""

from __future__ import annotations

from pathlib import Path

from protocol.digest import Digest

CHECKPOINTS = "checkpoints"
ABANDONED = "left"
LEDGER = "ledger.safetensors"
LEDGER_MARK = "ledger-mark"
RESULTS = "results"
VIEW_RECORDS = "stands"
HELD = "held"
CERTIFICATES = "certificates"
PROOFS = "proofs"
# The checkpoints of every run with this tip, also on left branches. The name starts with a digit,
# so that drafts do not match.
CHECKPOINT_PATTERNS = (
    "runs/*/checkpoints/[0-9]*-{tip}.safetensors",
    "runs/*/checkpoints/left/*/[0-9]*-{tip}.safetensors",
)


class RunFolder:
    """The paths of one run in one home."""

    def __init__(self, home: Path, run: Digest) -> None:
        self.path = home / "runs" / run.hex()
        self.checkpoints = self.path / CHECKPOINTS
        self.abandoned = self.checkpoints / ABANDONED
        self.ledger = self.path / LEDGER
        self.ledger_mark = self.path / LEDGER_MARK
        self.results = self.path / RESULTS
        self.view_records = self.path / VIEW_RECORDS
        self.held = self.path / HELD
        self.certificates = self.path / CERTIFICATES
        self.proofs = self.path / PROOFS
