"""What a demo asks of the chain that pays its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from daemon.demo.process import DemoProcess, Lifeline
from daemon.demo.result import ClaimedReward


class DemoSettlement(Protocol):
    """The chain of a demo that pays. `settlement_demo.py` has the implementation."""

    devnet: DemoProcess
    pool: int

    def begin(self, lifeline: Lifeline) -> None:
        """Start the chain and make the wallets."""

    def run_file(self, text: str) -> Path:
        """Write the run with its settlement."""

    def settings(self) -> dict[str, object]:
        """Return the `[chain]` of a daemon."""

    def arguments(self) -> list[str]:
        """Arguments of `hypergpud start`."""

    def pay(self, names: Sequence[str]) -> tuple[ClaimedReward, ...]:
        """Settle, and let the daemons `names` claim."""
