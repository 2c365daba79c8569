"""A free rider among honest daemons is named by work audits, and is paid nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.chain.home_runs import certificates_on_disk, runs_of
from daemon.home.layout import JOURNAL_FILE
from daemon.journal_reader import JournalReader
from protocol.journal import WorkAudited
from protocol.settlement.paid_work import paid_work
from protocol.status.peer_records import AuditSummary
from tests.e2e.swarm import Daemon, Machine, Swarm

OPEN_RUN = """
rules = 4
name = "audited-text"
task = "byte_gpt"
seed = 3
[task_options]
layers = 1
heads = 2
width = 32
context = 32
corpus = "stdlib"
[inner]
learning_rate = 2e-3
batch_size = 8
[round]
seconds = {seconds}
ready_s = 1.5
scatter_s = 6.0
gather_s = 6.0
vote_s = 3.0
[admission]
policy = "open"
"""
"""Of its samples, an audit may choose many that nobody drew in a round."""

FREE_RIDER = Path(__file__).with_name("free_rider")
# Each verdict takes a few audits, and an audit comes every few rounds.
VERDICTS_S = 400.0

pytestmark = pytest.mark.real


def audits_of(auditor: Daemon, peer: str) -> AuditSummary | None:
    status = auditor.status()
    audits = status.membership.audits if status is not None and status.membership else ()
    return next((audit for audit in audits if audit.peer == peer), None)


def is_judged(auditor: Daemon, peer: str) -> bool:
    audit = audits_of(auditor, peer)
    return audit is not None and audit.favours is not None


def verdicts_of(auditor: Daemon) -> dict[str, WorkAudited]:
    """Return the audit of each peer with which the auditor first came to a verdict."""
    found: dict[str, WorkAudited] = {}
    for event in JournalReader(auditor.home / JOURNAL_FILE):
        if isinstance(event, WorkAudited) and event.favours is not None:
            found.setdefault(event.peer, event)
    return found


@pytest.mark.slow
@pytest.mark.alone
def test_a_free_rider_is_named_and_paid_nothing_after_three_audits(tmp_path: Path) -> None:
    """Figure of issue 16. The founder votes; a worker and a free rider are strangers."""
    riding = Machine(prefix=("env", f"PYTHONPATH={FREE_RIDER}"))
    machines = (Machine(), Machine(), riding)
    with Swarm(tmp_path, run=OPEN_RUN, machines=machines) as swarm:
        founder = swarm.begin()
        worker = swarm.join("worker", founder)
        rider = swarm.join("rider", founder, worker)
        swarm.until_round(2, founder, worker, rider)
        peers = {one.peer: one.name for one in (founder, worker, rider)}
        for one in (worker, rider):
            swarm.until(
                lambda one=one: is_judged(founder, one.peer), f"{one.name} is judged", VERDICTS_S
            )
        at = founder.now().run.number
        swarm.until_round(at + 2, founder, worker, rider)
        swarm.stop(founder, worker, rider)
        said = verdicts_of(founder)
        assert said[rider.peer].favours is False
        assert len(said[rider.peer].scores) <= 3
        assert said[worker.peer].favours is True
        earned = dict.fromkeys(peers.values(), 0)
        counted = dict.fromkeys(peers.values(), 0)
        (run,) = runs_of(founder.home)
        damage: list[str] = []
        held = certificates_on_disk(founder.home, run, damage.append)
        assert not damage
        certificates = {one.hash: one for one in held}
        paid = paid_work(run.run, run.manifest, certificates, dict.fromkeys(certificates, 0))
        for certificate in held:
            for index in certificate.inclusion.contributors:
                name = peers[certificate.plan.members[index]]
                counted[name] += certificate.plan.offers[index].samples
                earned[name] += paid.pay(certificate, index).samples
        print({"counted": counted, "earned": earned})
        assert counted["rider"] > 0
        assert earned["rider"] == 0
        # A newcomer beside one voter weighs little, and is paid for twice its usual weight.
        assert earned["worker"] > 0
