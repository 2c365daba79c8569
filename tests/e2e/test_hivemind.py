"""Two daemons with `engine = "hivemind"`: they average, certify nothing, and restart from disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from protocol.status import Status
from tests.e2e.processes import still_running, until
from tests.e2e.swarm import Daemon, Swarm

RUN = """
name = "small-digits-hivemind"
task = "simple_cnn"
seed = 7
engine = "hivemind"
[task_options]
width = 4
[inner]
learning_rate = 1e-3
batch_size = 8
[round]
seconds = {seconds}
"""
ROUND_S = 5.0
# Each of two daemons imports torch twice, on a busy machine.
LIMIT_S = 120.0

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]


def averaged(status: Status | None) -> dict[int, set[str]]:
    """Return the averaged rounds of a status, with their members."""
    rounds = status.rounds if status else ()
    return {
        known.number: set(known.contributors) for known in rounds if known.outcome == "averaged"
    }


def newest_anchor(swarm: Swarm, daemon: Daemon, number: int) -> np.ndarray:
    (file,) = daemon.home.glob(
        f"runs/{swarm.run_id(daemon)}/checkpoints/{number:010d}-*.safetensors"
    )
    return load_file(file)["anchor"]


def test_hivemind_daemons_average_and_report_that_nothing_is_certified(
    tmp_path: Path,
) -> None:
    with Swarm(tmp_path, round_s=ROUND_S, run=RUN) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        both = {daemon.now().you.peer for daemon in (first, second)}
        swarm.until(
            lambda: (
                any(members == both for members in averaged(first.status()).values())
                and averaged(second.status())
            ),
            "both average in one group",
            LIMIT_S,
        )
        for daemon in (first, second):
            status = daemon.now()
            assert status.run.rounds_certified == 0
            assert status.run.engine == "hivemind"
            assert "not certified" in status.verdict
            assert "earn nothing" in status.rewards
            assert any(peer.role == "node" and peer.connected for peer in status.peers)

        # After the same rounds both hold the same parameters up to rounding. hivemind guarantees no
        # more.
        swarm.stop(second)
        common = set(first.anchors(swarm.run_id(first))) & set(second.anchors(swarm.run_id(second)))
        assert common
        ours, theirs = (newest_anchor(swarm, daemon, max(common)) for daemon in (first, second))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

        # kill -9 of the node must end hivemind's processes and its libp2p daemon too.
        family = first.family()
        assert len(family) >= 8, "node, guard, worker, hivemind process, guard, DHT, averager, p2pd"
        reached = max(first.anchors(swarm.run_id(first)))
        first.kill_alone()
        until(
            lambda: not still_running(family),
            "everything that the killed daemon started has ended",
            10.0,
        )

        swarm.restart(first)
        status = first.now()
        swarm.until(
            lambda: (status := first.status()) is not None and status.you.phase == "train",
            "it trains again",
            LIMIT_S,
        )
        status = first.now()
        assert any(
            f"resuming from round {reached}" in text
            for text in (status.you.phase_reason, first.log())
        )
