"""The harness with real processes: survivors agree and are exact, and no process is left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.services.training.native.state.ledger_store import PASSED_BY
from protocol.errors import UserError
from protocol.run.manifest import Manifest, RoundRules, seal
from simulator.bench.fault_record import table
from simulator.bench.faults import bench_faults, check_engines
from simulator.harness.audit import Audit
from simulator.harness.cohort import Cohort, cohort_of
from simulator.harness.relay import CLEAR, LinkCondition, Relay
from simulator.harness.trial import TrialRunner
from simulator.harness.wire import AnyLine, Certified, Dump, Dumped, Remark, StretchCollected

REPOSITORY = Path(__file__).parents[2]
# Thirteen chunks: each of the four members reduces something.
ELEMENTS = 50_000
SIGNED = seal(Manifest(name="harness", task="content", seed=9, round=RoundRules(seconds=0.7)))

pytestmark = [pytest.mark.real, pytest.mark.swarm, pytest.mark.timeout(150)]


@asynccontextmanager
async def certified_pair(root: Path) -> AsyncIterator[TrialRunner]:
    """Two members that have certified rounds together."""
    async with cohort_of(2, root, SIGNED, ELEMENTS) as cohort:
        trials = TrialRunner(cohort, root)
        await trials.begin()
        await trials.until_whole()
        yield trials


def audited(lines: list[tuple[int, AnyLine]]) -> Audit:
    audit = Audit(SIGNED, ELEMENTS)
    for member, line in lines:
        audit.receive(member, line)
    audit.finish()
    return audit


async def test_an_audit_finds_rounds_exact_and_notices_every_kind_of_difference(
    tmp_path: Path,
) -> None:
    async with certified_pair(tmp_path) as trials:
        cohort = trials.cohort
        for member in cohort.members:
            cohort.send(member, Dump(path=str(tmp_path / f"anchor-{member.index}"), number=1))
        await cohort.until(
            lambda: all(
                any(isinstance(line, Dumped) for line in member.lines) for member in cohort.members
            ),
            "both dumped",
            30.0,
        )
        lines = sorted(
            ((member.index, line) for member in cohort.members for line in member.lines),
            key=lambda one: one[1].at_s,
        )
    right = audited(lines)
    assert right.findings
    assert set(right.findings.values()) == {""}
    assert not right.doubts
    for dumped in (line for _, line in lines if isinstance(line, Dumped)):
        assert os.stat(dumped.path).st_size == 8 * ELEMENTS

    def altered(kind: type[AnyLine], **changes: object) -> Audit:
        """The same history, but for the first line of a kind."""
        at = next(i for i, (_, line) in enumerate(lines) if isinstance(line, kind))
        changed = (lines[at][0], msgspec.structs.replace(lines[at][1], **changes))
        return audited([*lines[:at], changed, *lines[at + 1 :]])

    assert any(altered(StretchCollected, stretch=77).findings.values()), (
        "another vector was contributed"
    )
    assert any(altered(StretchCollected, samples=5).findings.values()), "with another weight"
    without_offer = audited([one for one in lines if type(one[1]).__name__ != "Offered"])
    assert all(without_offer.findings.values()), "nothing was offered"
    raw = next(line.raw for _, line in lines if isinstance(line, Certified))
    assert any(altered(Certified, raw=raw[:-1] + bytes([raw[-1] ^ 1])).findings.values()), (
        "a signature is wrong"
    )


def test_survivors_of_a_kill_and_of_a_stop_agree_and_are_exact() -> None:
    said: list[str] = []
    records = bench_faults(steps=["gather"], runs=1, elements=ELEMENTS, say=said.append)
    print("\n".join([*said, table(records)]))
    assert [(record.kind, record.runs) for record in records] == [("kill", 1), ("stop", 1)]
    for record in records:
        assert record.perfect, record
        assert record.seconds_after_fault_median is not None
        assert record.fault_free_seconds_median is not None


def test_bench_faults_refuses_an_unknown_engine() -> None:
    check_engines(["native", "hivemind"])
    with pytest.raises(UserError, match="Unknown engine 'carrier-pigeon'"):
        check_engines(["native", "carrier-pigeon"])
    command = [
        sys.executable,
        "-m",
        "daemon.cli.main",
        "bench",
        "faults",
        "--engines",
        "carrier-pigeon",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 2
    assert "known engines: native, hivemind" in done.stderr


@pytest.mark.parametrize("stopped", [False, True])
def test_killed_harness_leaves_no_member(tmp_path: Path, stopped: bool) -> None:
    """The members end with the harness, even a stopped one that notices nothing."""
    code = (
        "import sys, time, trio\nfrom pathlib import Path\nfrom "
        "tests.simulator.test_harness import SIGNED\n"
        "from simulator.harness.cohort import cohort_of\n"
        "async def main():\n"
        "    async with cohort_of(1, Path(sys.argv[1]), SIGNED, 50_000) as cohort:\n"
        "        await cohort.start(cohort.members[0])\n"
        "        print(cohort.members[0].pid, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    harness = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env=environ
    )
    assert harness.stdout is not None
    pid = int(harness.stdout.readline())
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    harness.kill()
    harness.wait(10)
    harness.stdout.close()
    deadline = time.monotonic() + 10
    while _running(pid):
        assert time.monotonic() < deadline, "the member outlived the harness"
        time.sleep(0.05)


def _running(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
            not in "ZX"
        )
    except OSError:
        return False


# Both halves wait for their deadlines, on a busy machine for a minute.
@pytest.mark.slow
async def test_partition_through_the_relay_heals_into_one_exact_lineage(tmp_path: Path) -> None:
    """Two pairs that cannot hear each other certify on, and become one run when they meet.

    Every certificate is exact.
    """
    async with trio.open_nursery() as nursery, cohort_of(4, tmp_path, SIGNED, ELEMENTS) as cohort:
        trials = TrialRunner(cohort, tmp_path)
        relay = Relay(nursery)
        await _start_behind(relay, cohort)
        step = await trials.until_whole()
        names = [member.home.name for member in cohort.members]
        relay.split([names[:2], names[2:]], LinkCondition(cut=True))

        def apart() -> bool:
            tips = [member.tip.hash if member.tip else "" for member in cohort.members]
            numbers = [member.tip.number if member.tip else 0 for member in cohort.members]
            return (
                tips[0] == tips[1]
                and tips[2] == tips[3]
                and tips[0] != tips[2]
                and min(numbers) > step.tip.number + 1
            )

        await cohort.until(apart, "both halves certify on their own", 60.0)
        relay.split([names[:2], names[2:]], CLEAR)
        await trials.until_whole()
        trials.judge.catch_up()
        merges = [
            made
            for made in trials.audit.steps.values()
            if len(made.certificate.outcome.parents) == 2
        ]
        assert merges
        assert set(trials.audit.findings.values()) == {""}
        said = [
            line.text
            for member in cohort.members
            for line in member.lines
            if isinstance(line, Remark) and "dropped" in line.text
        ]
        assert all(PASSED_BY in text or "initial parameters" in text for text in said), said
        nursery.cancel_scope.cancel()


async def _start_behind(relay: Relay, cohort: Cohort) -> None:
    """Start all members, each behind an address of the relay."""
    for member in cohort.members:
        listens, advertised = f"127.87.2.{member.index + 1}", f"127.88.2.{member.index + 1}"
        relay.introduce(
            member.home.name, lambda member=member: member.pid if member.alive else None
        )
        ports = [await relay.forward(member.home.name, advertised, listens) for _ in range(2)]
        where = [
            "--listen",
            listens,
            "--advertise",
            advertised,
            "--port",
            str(ports[0]),
            "--bulk-port",
            str(ports[1]),
        ]
        await cohort.start(member, *where)
