"""Two of five voters of a real run lie: the second to the fifth story of the trust scenarios.

`tests/e2e/test_takeover.py` has the first one, certificates of keys without a vote.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.chain.home_runs import certificates_on_disk, runs_of
from daemon.demo.founders import with_demo_founders
from protocol.certificates.certificate import OpenCertificate
from tests.e2e.swarm import RUN, Daemon, Machine, Swarm

EVIL_VOTER = Path(__file__).with_name("evil_voter")
NAMES = ("one", "two", "three", "evil", "twin")
HONEST, EVIL = NAMES[:3], NAMES[3:]
GRACE_S = 15.0
ROUND_S = 3.0
OPEN_RUN = (
    "rules = 4\n"
    + RUN
    + f"""
[admission]
policy = "open"
[trust]
quorum_grace_s = {GRACE_S}
audit = "none"
"""
)

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]


@contextmanager
def attacked(root: Path, lie: str) -> Iterator[tuple[Swarm, list[Daemon]]]:
    """Start three honest voters and two that tell the same lie."""
    homes = [root / name for name in NAMES]
    text = with_demo_founders(OPEN_RUN.format(seconds=ROUND_S), homes)
    accomplices = ":".join(str(root / name) for name in EVIL)
    evil = Machine(
        prefix=(
            "env",
            f"PYTHONPATH={EVIL_VOTER}",
            f"E2E_LIE={lie}",
            f"E2E_ACCOMPLICES={accomplices}",
        )
    )
    machines = [Machine() if name in HONEST else evil for name in NAMES]
    with Swarm(root, run=text, machines=machines) as swarm:
        first = swarm.begin(NAMES[0])
        for name in NAMES[1:]:
            swarm.join(name, first)
        honest = swarm.daemons[: len(HONEST)]
        swarm.until_round(2, *swarm.daemons, limit_s=240.0)
        yield swarm, honest
        evil_ones = swarm.daemons[len(HONEST) :]
        assert any("the lie was told" in one.log() for one in evil_ones), "nobody lied"
        swarm.stop(*honest)
        assert swarm.agreement(*honest).agreed


def voters_of(daemon: Daemon) -> set[str]:
    status = daemon.now()
    assert status.membership is not None
    return set(status.membership.voters)


def certified(daemon: Daemon) -> list[OpenCertificate]:
    (run,) = runs_of(daemon.home)
    damage: list[str] = []
    held = certificates_on_disk(daemon.home, run, damage.append)
    assert not damage
    return held


def pass_rounds(swarm: Swarm, honest: list[Daemon], rounds: int) -> None:
    number = max(one.now().run.number for one in honest)
    swarm.until_round(number + rounds, *honest, limit_s=30.0 * rounds)


def assert_no_certificate_of_two(daemon: Daemon) -> None:
    """Every certificate that the daemon holds has the votes of three of the five voters."""
    for certificate in certified(daemon):
        assert len(certificate.votes) >= 3, certificate.outcome.number


def test_two_of_five_voters_lead_nobody_to_certificates_of_their_own(tmp_path: Path) -> None:
    with attacked(tmp_path, "private_branch") as (swarm, honest):
        pass_rounds(swarm, honest, 12)
        assert all(len(voters_of(one)) == 5 for one in honest)
    for one in honest:
        assert_no_certificate_of_two(one)


def test_daemons_that_slept_for_the_grace_follow_no_certificate_of_two(tmp_path: Path) -> None:
    """The honest three are stopped for longer than the grace, as by a closed lid."""
    with attacked(tmp_path, "private_branch") as (swarm, honest):
        for one in honest:
            os.kill(one.pid, signal.SIGSTOP)
        time.sleep(GRACE_S + 10.0)
        for one in honest:
            os.kill(one.pid, signal.SIGCONT)
        pass_rounds(swarm, honest, 6)
    for one in honest:
        assert_no_certificate_of_two(one)


def test_daemons_with_other_copies_of_a_certificate_hold_one_record(tmp_path: Path) -> None:
    with attacked(tmp_path, "different_copies") as (swarm, honest):
        pass_rounds(swarm, honest, 12)
        assert len({frozenset(voters_of(one)) for one in honest}) == 1
    held = [{each.hash: each for each in certified(one)} for one in honest]
    common = set.intersection(*map(set, held))
    assert len(common) >= 10
    copies = [{frozenset(peer for peer, _ in one[name].votes) for one in held} for name in common]
    assert any(len(each) > 1 for each in copies), "every daemon got the same copies"


def test_voters_that_censoring_leaders_leave_out_keep_their_votes(tmp_path: Path) -> None:
    with attacked(tmp_path, "censor_voters") as (swarm, honest):
        pass_rounds(swarm, honest, 20)
        assert all(len(voters_of(one)) == 5 for one in honest)
    evil = {one.peer for one in swarm.daemons[len(HONEST) :]}
    plans = [each.plan for each in certified(honest[0])]
    assert any(len(plan.members) == 3 and plan.leader in evil for plan in plans)
    planned = {peer for plan in plans[-10:] for peer in plan.members}
    assert {one.peer for one in honest} <= planned
