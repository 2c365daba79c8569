"""A node alone learns, reports that it is alone, and keeps its work for its first certificate."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import pytest

from protocol.journal import AnyEvent, RoundCertified, Trained, Warned, decode_event
from tests.e2e.swarm import UP_S, Daemon, Swarm, certified, hypergpud

# From the start of the process to its end.
STATUS_S = 0.3
# Series of five answers; another program may slow one series down.
TRIES = 3

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(240)]


def journal(daemon: Daemon) -> list[AnyEvent]:
    """Return all events of its journal, without a line that is being written."""
    return [
        decode_event(line)
        for line in (daemon.home / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    ]


def alone(daemon: Daemon, pending: int) -> bool:
    """Return whether it reports that it is alone, with more than `pending` samples waiting."""
    status = daemon.status()
    return (
        status is not None
        and status.verdict.startswith("Alone; ")
        and status.you.samples_pending > pending
    )


def test_work_of_a_lone_node_is_its_first_offer(tmp_path: Path) -> None:
    with Swarm(tmp_path) as swarm:
        hermit = swarm.begin("hermit")
        swarm.until(lambda: alone(hermit, 0), "the node says that it is alone", UP_S)
        learned = hermit.now().you.samples_pending
        swarm.until(lambda: alone(hermit, learned), "what it learns grows")
        commands_answer(hermit)
        status = hermit.now()
        assert status.run.number == 0, "a node alone certifies nothing"
        assert not certified(status)
        learned = status.you.samples_pending

        stopped = hypergpud("stop", home=hermit.home)
        assert (stopped.returncode, stopped.stdout) == (0, "Stopped.\n"), stopped.stderr
        assert hermit.wait(1.0)
        assert hypergpud("status", home=hermit.home).returncode == 3
        (ledger,) = hermit.home.glob("runs/*/ledger.safetensors")
        torn = ledger.with_name("certificates")
        torn.write_bytes(b"torn")
        swarm.restart(hermit)
        swarm.until(lambda: alone(hermit, learned), "its work is kept across a restart", UP_S)
        learned = hermit.now().you.samples_pending

        # The second node gets only an address, and learns the run from the first.
        second = swarm.join("second", hermit)
        swarm.until_round(1, hermit, second)
        (first_round,) = (known for number, known in certified(hermit.now()).items() if number == 1)
        me = hermit.now().you.peer
        assert me in first_round.contributors
        swarm.until_round(3, hermit, second)
        swarm.stop(hermit, second)
        events = journal(hermit)
        (damage,) = (
            event for event in events if isinstance(event, Warned) and event.code == "DAMAGED"
        )
        assert damage.message.endswith(str(torn))
        (one,) = (
            event for event in events if isinstance(event, RoundCertified) and event.number == 1
        )
        (share,) = (share for share in one.shares if share.peer == me)
        trained = sum(
            event.samples for event in events[: events.index(one)] if isinstance(event, Trained)
        )
        print(
            f"alone it had learned from {learned} samples; its first offer carried"
            f" {share.samples} of {trained} trained"
        )
        assert share.samples >= learned
        assert share.samples <= trained, "no sample counts twice"
        assert swarm.agreement(hermit, second).agreed


def commands_answer(daemon: Daemon) -> None:
    """Run `status` and `peers`, and measure how long the answer takes."""
    shown = hypergpud("status", home=daemon.home)
    assert shown.returncode == 0, shown.stderr
    assert "Alone; " in shown.stdout
    as_json = hypergpud("status", "--json", home=daemon.home)
    assert json.loads(as_json.stdout)["you"]["name"] == daemon.name
    assert json.loads(hypergpud("peers", "--json", home=daemon.home).stdout)["peers"] == []
    assert hypergpud("peers", home=daemon.home).returncode == 0
    medians = []
    for _ in range(TRIES):
        medians.append(statistics.median(status_takes_s(daemon) for _ in range(5)))
        if medians[-1] < STATUS_S:
            break
    print(
        f"status answered within {', '.join(f'{median:.3f}' for median in medians)} s (medians"
        f" of 5)"
    )
    assert min(medians) < STATUS_S


def status_takes_s(daemon: Daemon) -> float:
    began = time.perf_counter()
    assert hypergpud("status", home=daemon.home).returncode == 0
    return time.perf_counter() - began


@pytest.mark.parametrize("command", ["status", "peers", "stop"])
def test_commands_without_a_daemon_say_so(command: str, tmp_path: Path) -> None:
    said = hypergpud(command, home=tmp_path / "nobody")
    assert said.returncode == 3
    assert "No daemon is running" in said.stderr
    assert not (tmp_path / "nobody").exists()
