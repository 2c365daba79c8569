"""A swarm with a daemon that is killed during a round, a newcomer, a return, and an orderly end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from daemon.disk.file_disk import FileDisk
from protocol.ports.offload import inline
from protocol.status import RoundSummary
from tests.e2e.processes import still_running, until
from tests.e2e.swarm import ROUND_S, UP_S, Daemon, Swarm, certified

EXCHANGING = ("scatter", "reduce", "vote")
# Fifteen rounds, in one of which an exchange of 20 to 100 ms is seen; a status takes 1 ms.
CAUGHT_S = 30.0

pytestmark = [pytest.mark.real, pytest.mark.swarm, pytest.mark.timeout(300)]


def in_the_middle_of_a_round(daemon: Daemon) -> str:
    """Wait until the daemon is in an exchange. Returns the phase."""
    deadline = time.monotonic() + CAUGHT_S
    # No pause: the phase may be over in 20 ms.
    while True:
        status = daemon.status()
        if status is not None and status.you.phase in EXCHANGING:
            return status.you.phase
        assert time.monotonic() < deadline, f"{daemon.name} was never seen exchanging"


def test_swarm_survives_a_killed_daemon_and_admits_a_newcomer(tmp_path: Path) -> None:
    with Swarm(tmp_path) as swarm:
        first = swarm.begin()
        others = [swarm.join(name, first) for name in ("second", "third", "fourth")]
        four = [first, *others]
        swarm.until_round(3, *four)
        # The first rounds may be certified without daemons that started late, or without one that
        # was in a later view already.
        swarm.until(
            lambda: any(len(known.contributors) == 4 for known in certified(first.now()).values()),
            "a round with all",
            ROUND_S,
        )
        settled = max(daemon.now().run.number for daemon in four)
        swarm.until_round(settled, *four)
        statuses = [daemon.now() for daemon in four]
        peers = {
            daemon.name: status.you.peer for daemon, status in zip(four, statuses, strict=True)
        }
        assert len({certified(status)[settled].state_digest for status in statuses}) == 1, (
            "one certificate, one state"
        )

        # Kill the daemon that the others joined through: none may depend on it.
        family = first.family()
        assert len(family) == 3, "a node process, and its worker behind a guard"
        phase = in_the_middle_of_a_round(first)
        first.kill_alone()
        killed_at = max(daemon.now().run.number for daemon in others)
        print(f"killed in {phase}, round {killed_at + 1}")
        until(lambda: not still_running(family), "the killed daemon's worker ended with it", 10.0)
        killed = time.monotonic()
        swarm.until_round(killed_at + 3, *others)
        print(f"the next three rounds came within {time.monotonic() - killed:.1f} s")
        after = certified(others[0].now())
        assert set(after[killed_at + 3].contributors) == {peers[daemon.name] for daemon in others}

        # A newcomer joins through a daemon that itself joined, and the killed daemon restarts from
        # its own home.
        joined_at = others[1].now().run.number
        assert joined_at >= 3
        reached = _replayable(first, swarm.run_id(first), certified(others[1].now()))
        newcomer = swarm.join("newcomer", others[1])
        swarm.restart(first, others[2])
        swarm.until(lambda: _counts(newcomer), "the newcomer's work counts", UP_S)
        swarm.until(lambda: _counts(first), "the killed daemon's work counts again", UP_S)
        assert any("Caught up with round" in event.text for event in newcomer.now().events), (
            "it downloaded the anchor"
        )
        assert first.now().you.peer == peers["first"]
        assert min(certified(first.now())) == reached + 1, "it replayed what its disk holds"

        five = [*others, newcomer, first]
        settled = max(daemon.now().run.number for daemon in five) + 1
        swarm.until_round(settled, *five, limit_s=ROUND_S)
        digests = {
            certified(status)[settled].state_digest for status in (daemon.now() for daemon in five)
        }
        assert len(digests) == 1, digests
        swarm.stop(*five)
        agreement = swarm.agreement(*five)
        assert agreement.agreed, agreement.reason
        assert agreement.number is not None
        assert agreement.number >= settled
        print(agreement.reason)
        for daemon in five:
            assert "Traceback" not in daemon.log()


def _replayable(daemon: Daemon, run: str, known: dict[int, RoundSummary]) -> int:
    """Return the certificate that a killed daemon's restart reaches from its own disk.

    After the last full state, it is the last one up to which the disk holds each certificate and
    its results. Another daemon's certificates (`known`) name the states.
    """
    number = max(daemon.anchors(run))
    disk = FileDisk(daemon.home, inline)
    on_disk = number + len(trio.run(disk.certificates, bytes.fromhex(run), number + 1, 1_000))
    results = daemon.home / "runs" / run / "results"
    while (
        number < on_disk
        and (results / f"{number + 1}-{known[number + 1].state_digest}.results").exists()
    ):
        number += 1
    return number


def _counts(daemon: Daemon) -> bool:
    status = daemon.status()
    return status is not None and status.you.rounds_counted > 0
