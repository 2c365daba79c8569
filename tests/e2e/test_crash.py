"""The life of a swarm: rounds, a daemon killed in the middle of one, a newcomer, the return of the
killed one, an orderly end.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.processes import still_running, until
from tests.e2e.swarm import ROUND_S, UP_S, Daemon, Swarm, certified

EXCHANGING = ("scatter", "reduce", "vote")
# Fifteen rounds in which to see one exchange, which takes 20 to 100 ms; a status takes one.
CAUGHT_S = 30.0

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]


def in_the_middle_of_a_round(daemon: Daemon) -> str:
    """Wait until the daemon exchanges; returns the phase it was seen in."""
    deadline = time.monotonic() + CAUGHT_S
    # Without a pause: what is waited for is over in a blink.
    while True:
        status = daemon.status()
        if status is not None and status.you.phase in EXCHANGING:
            return status.you.phase
        assert time.monotonic() < deadline, f"{daemon.name} was never seen exchanging"


def test_a_swarm_outlives_a_killed_daemon_and_takes_in_a_newcomer(tmp_path: Path) -> None:
    with Swarm(tmp_path) as swarm:
        first = swarm.begin()
        others = [swarm.join(name, first) for name in ("second", "third", "fourth")]
        four = [first, *others]
        swarm.until_round(3, *four)
        # The first rounds may have been certified by those who were up first, and without one who
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

        # The one that the others joined through is killed: nobody may depend on it.
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

        # A newcomer in the middle of the run, through one that is no longer new itself; the killed
        # one comes back from its own home.
        joined_at = others[1].now().run.number
        assert joined_at >= 3
        checkpoint = max(first.anchors(swarm.run_id(first)))
        newcomer = swarm.join("newcomer", others[1])
        swarm.again(first, others[2])
        swarm.until(lambda: _counts(newcomer), "the newcomer's work counts", UP_S)
        swarm.until(lambda: _counts(first), "the killed daemon's work counts again", UP_S)
        assert any("Caught up with round" in event.text for event in newcomer.now().events), (
            "it downloaded the anchor"
        )
        assert first.now().you.peer == peers["first"]
        assert min(certified(first.now())) == checkpoint + 1, (
            "it went on from its checkpoint, not from nothing"
        )

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


def _counts(daemon: Daemon) -> bool:
    status = daemon.status()
    return status is not None and status.you.rounds_counted > 0
