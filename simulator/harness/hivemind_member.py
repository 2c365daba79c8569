"""A hivemind process that can be struck in mid-round.

It is the engine's own process (`daemon/services/training/hivemind/main.py`) with a listener to its
moments. The strike is a file in its folder, read at each moment of a round. The signal goes to the
whole process group, with hivemind's averager, DHT and daemon, as the end or the sleep of a machine
would.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from daemon.services.training.hivemind.main import main
from simulator.harness.steps import Kind, Step

STRIKE_FILE = "strike"

MOMENT_OF: dict[Step, str] = {
    "scatter": "scatter",
    "reduce": "reduce",
    "gather": "gather",
    "vote": "whole",
}
"""The native engine's steps in hivemind's all-reduce.

hivemind moves a vector in parts of half a megabyte, with all steps at once:

scatter: the member is about to send its first part.
reduce: the first part from another member arrived to be summed.
gather: the first part of its own slice is summed and not sent yet.
vote: hivemind has none. The nearest moment is when the member holds its whole result and has not
  returned it to its caller, while others may still receive from it.
"""


class HivemindStrike(msgspec.Struct, frozen=True, kw_only=True):
    """Strike this member at `step`, `after_s` into it, or when the step ends before."""

    kind: Kind
    step: Step
    after_s: float
    # The file that receives the time of the signal, CLOCK_MONOTONIC.
    report: str


class Striker:
    """Strikes inside the averager's process, which hivemind forks."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / STRIKE_FILE
        self._due: HivemindStrike | None = None

    def reached(self, moment: str) -> None:
        if self._due is not None:
            self._strike(self._due)
        try:
            strike = msgspec.json.decode(self._file.read_bytes(), type=HivemindStrike)
        except FileNotFoundError:
            return
        if MOMENT_OF[strike.step] != moment:
            return
        if strike.after_s:
            self._due = strike
            threading.Timer(strike.after_s, self._strike, (strike,)).start()
        else:
            self._strike(strike)

    def _strike(self, strike: HivemindStrike) -> None:
        self._due = None
        written = Path(strike.report + ".part")
        written.write_text(f"{time.monotonic()}", encoding="ascii")
        # The rename makes the file appear complete.
        written.rename(strike.report)
        self._file.unlink(missing_ok=True)
        os.killpg(0, signal.SIGKILL if strike.kind == "kill" else signal.SIGSTOP)


if __name__ == "__main__":
    main(Striker(Path(sys.argv[4])).reached)
