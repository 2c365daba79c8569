"""All targets in turn. Two busy cores take about three minutes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from daemon.node.run_choice import bundled_run
from protocol.errors import Unreachable
from simulator.bench.targets import readings
from simulator.bench.targets.averaging import measure_averaging
from simulator.bench.targets.daemon_swarm import DaemonSwarm, MemoryReading
from simulator.bench.targets.disk_use import measure_disk
from simulator.bench.targets.many_nodes import measure_scaling
from simulator.bench.targets.target_row import Target, TargetRow, measured, unmeasured

DAEMONS = 10
# Half a minute of training.
ROUNDS = 4
REQUESTS = 50
SHARE = 0.95
GB = 1e9
# Ten workers on two cores train 342 samples/s of the bundled byte-level GPT. A sample of the
# shipped digits is cheaper: what remains is what HyperGPU itself allows.
RUN = "digits-cnn"

SPEED = Target(name="training, 10 nodes", wanted="above", limit=1000.0, unit="samples/s")
MEMORY = Target(name="memory, 10 nodes in all", wanted="below", limit=2.0, unit="GB")
DETECTION = Target(name="detection of a lost member", wanted="below", limit=5.0, unit="s")
ANSWER = Target(name="API", wanted="below", limit=100.0, unit="ms")

Say = Callable[[str], None]


def measure(say: Say) -> list[TargetRow]:
    """Measure every target. A measurement that fails misses its target, and says why."""
    return [
        measure_averaging(bundled_run().codec, say),
        *measure_daemons(say),
        measure_disk(say),
        measure_scaling(say),
    ]


def run_text() -> str:
    """The shipped run that the daemons train."""
    return files("configs").joinpath("runs", f"{RUN}.toml").read_text(encoding="utf-8")


def measure_daemons(say: Say, *, count: int = DAEMONS, rounds: int = ROUNDS) -> list[TargetRow]:
    """Start `count` daemons, and measure what they do in `rounds` rounds."""
    with tempfile.TemporaryDirectory(
        prefix="hypergpu-targets-", ignore_cleanup_errors=True
    ) as folder:
        root = Path(folder)
        run_file = root / "run.toml"
        run_file.write_text(run_text(), encoding="utf-8")
        with DaemonSwarm(root, run_file, count) as swarm:
            say(f"starting {count} daemons that train {RUN}")
            try:
                swarm.start()
            except Unreachable as error:
                why = str(error).splitlines()[0]
                return [unmeasured(one, why) for one in (SPEED, MEMORY, ANSWER, DETECTION)]
            rows = [
                *_training_rows(swarm, rounds, say),
                _attempt(ANSWER, lambda: _answer_row(swarm, say)),
                _attempt(DETECTION, lambda: _detection_row(swarm, say)),
            ]
            say("stopping the daemons")
            swarm.stop()
    return rows


def _attempt(target: Target, measurement: Callable[[], TargetRow]) -> TargetRow:
    try:
        return measurement()
    except Unreachable as error:
        return unmeasured(target, str(error).splitlines()[0])


def _training_rows(swarm: DaemonSwarm, rounds: int, say: Say) -> list[TargetRow]:
    memory: list[MemoryReading] = []
    say(f"waiting for {rounds} rounds after one that counts all")
    try:
        certified = swarm.rounds(rounds, lambda: memory.append(swarm.memory_bytes()))
    except Unreachable as error:
        why = str(error).splitlines()[0]
        return [unmeasured(one, why) for one in (SPEED, MEMORY)]
    count = len(swarm.daemons)
    most = max(memory, key=sum)
    least = min(len(one.contributors) for one in certified)
    return [
        measured(
            SPEED,
            readings.samples_per_s(certified),
            f"{count} daemons on loopback train the shipped {RUN}: samples in {rounds} successive"
            f" certificates, which count at least {least} members, over all the time between them",
        ),
        measured(
            MEMORY,
            sum(most) / GB,
            f"the same {count} daemons with their workers: proportional set size of all"
            f" processes, the greatest of {len(memory)} looks: {most.nodes / GB:.2f} GB in nodes,"
            f" {most.workers / GB:.2f} GB in workers, which hold torch",
        ),
    ]


def _answer_row(swarm: DaemonSwarm, say: Say) -> TargetRow:
    say(f"asking an observer {REQUESTS} times")
    answers = swarm.answers_s(REQUESTS)
    return measured(
        ANSWER,
        1000 * readings.percentile(answers, SHARE),
        f"an observer beside the training daemons answers {REQUESTS} requests for its status:"
        f" {SHARE:.0%} are as fast, the slowest took {1000 * max(answers):.0f} ms",
    )


def _detection_row(swarm: DaemonSwarm, say: Say) -> TargetRow:
    victim = swarm.daemons[-1]
    say(f"killing {victim.name}")
    killed_at, noticed = swarm.lose(victim)
    seconds = readings.detection_s(noticed, killed_at)
    if seconds is None:
        missing = ", ".join(name for name, at in noticed.items() if at is None)
        return unmeasured(DETECTION, f"{missing} did not notice")
    return measured(
        DETECTION,
        seconds,
        f"kill -9 of one daemon, until the journals of all {len(noticed)} daemons connected to it"
        " have the loss",
    )
