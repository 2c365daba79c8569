"""What a node writes in a round: real daemons, the codec int4, rounds of 5 s."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from daemon.config.settings import DiskConfig
from protocol.errors import Unreachable
from protocol.status import Status
from simulator.bench.targets.daemon_swarm import DaemonSwarm
from simulator.bench.targets.target_row import Target, TargetRow, measured, unmeasured

# Three of them keep the results of each round. A larger swarm writes less per member.
DAEMONS = 4
ROUNDS = 8
# The first certificates bring the first full state, which a run writes once.
SETTLED_ROUNDS = 2
# With this many parameters the fixed records of a round, about 20 kB, weigh little.
RUN = """
name = "disk-use"
task = "byte_gpt"
codec = "int4"
seed = 1
[task_options]
layers = 4
heads = 4
width = 256
context = 32
corpus = "stdlib"
[inner]
learning_rate = 1e-3
batch_size = 2
[round]
seconds = 5.0
min_seconds = 5.0
"""
DISK = Target(name="disk, a round of 5 s, int4", wanted="below", limit=0.3, unit="x model")


class DiskReading(NamedTuple):
    """One look at one daemon."""

    number: int
    written_bytes: int


def per_round_bytes(readings: list[DiskReading]) -> float:
    """Bytes written in a round, between the first reading and the last.

    Raises:
        ValueError: No round was certified between them.
    """
    first, last = readings[0], readings[-1]
    if last.number <= first.number:
        raise ValueError("no round was certified between the readings")
    return (last.written_bytes - first.written_bytes) / (last.number - first.number)


def measure_disk(say: Callable[[str], None]) -> TargetRow:
    """Start daemons, and measure what each writes in a round.

    A full state is written every few minutes, so its size is read from the files and its share of a
    round is added.
    """
    with tempfile.TemporaryDirectory(
        prefix="hypergpu-targets-", ignore_cleanup_errors=True
    ) as folder:
        root = Path(folder)
        run_file = root / "run.toml"
        run_file.write_text(RUN, encoding="utf-8")
        with DaemonSwarm(root, run_file, DAEMONS) as swarm:
            say(f"starting {DAEMONS} daemons for what they write")
            try:
                swarm.start()
                row = _measured_row(swarm)
            except (Unreachable, ValueError) as error:
                return unmeasured(DISK, str(error).splitlines()[0])
            swarm.stop()
    return row


def _measured_row(swarm: DaemonSwarm) -> TargetRow:
    seen: list[list[Status]] = []

    def look() -> None:
        statuses = [daemon.status() for daemon in swarm.daemons]
        seen.append([status for status in statuses if status is not None])

    swarm.rounds(ROUNDS + SETTLED_ROUNDS, look)
    whole = [statuses for statuses in seen if len(statuses) == DAEMONS]
    begin = min(status.run.number for status in whole[0]) + SETTLED_ROUNDS
    settled = [one for one in whole if min(status.run.number for status in one) >= begin]
    results = sum(
        per_round_bytes(
            [DiskReading(at[i].run.number, at[i].you.disk_written_bytes) for at in settled]
        )
        for i in range(DAEMONS)
    )
    full_bytes = sum(_full_state_bytes(daemon.home) for daemon in swarm.daemons)
    last = settled[-1][0].run
    model_bytes = 4 * last.parameters
    round_s = last.round_seconds or 0.0
    full = full_bytes * round_s / DiskConfig().full_state_s
    node_bytes = swarm.memory_bytes().nodes / DAEMONS
    return measured(
        DISK,
        (results + full) / DAEMONS / model_bytes,
        f"{DAEMONS} daemons, {last.parameters:,} parameters, a round every {round_s:.1f} s:"
        f" {results / DAEMONS / model_bytes:.3f} x model for results and records, and"
        f" {full / DAEMONS / model_bytes:.3f} for a full state of"
        f" {full_bytes / DAEMONS / last.parameters:.1f} B/parameter every"
        f" {DiskConfig().full_state_s:.0f} s; a node has {node_bytes / 1e6:.0f} MB",
    )


def _full_state_bytes(home: Path) -> int:
    """The newest checkpoint and the ledger of a home's only run."""
    (run,) = (home / "runs").iterdir()
    newest = max(run.glob("checkpoints/*.safetensors"), default=None)
    ledger = run / "ledger.safetensors"
    if newest is None or not ledger.exists():
        raise ValueError("a daemon has no full state on disk")
    return newest.stat().st_size + ledger.stat().st_size
