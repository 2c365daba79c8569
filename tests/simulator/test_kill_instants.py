"""Real members killed at random instants: each comes back, and nothing is counted twice.

The harness recomputes every certified state from the stretches that the members reported. A stretch
that counts twice, or a ledger that a member never had, is found bit for bit.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from protocol.run.manifest import Manifest, RoundRules, seal
from simulator.harness.cohort import cohort_of
from simulator.harness.trial import TrialRunner
from simulator.harness.wire import Certified

MEMBERS = 3
# Five chunks: every member reduces something.
ELEMENTS = 20_000
ROUND_S = 0.3
# A round with its exchange: an instant is in any of its phases.
SPREAD_S = 0.8
SIGNED = seal(Manifest(name="kills", task="content", seed=5, round=RoundRules(seconds=ROUND_S)))

pytestmark = [pytest.mark.real, pytest.mark.swarm]


async def _killed_at_random_instants(root: Path, instants: int, seed: int) -> None:
    rng = random.Random(seed)
    async with cohort_of(MEMBERS, root, SIGNED, ELEMENTS) as cohort:
        trials = TrialRunner(cohort, root)
        await trials.begin()
        step = await trials.until_whole()
        phases = []
        for _ in range(instants):
            # The test kills by the clock and does not wait for the members.
            await trio.sleep(rng.uniform(0.0, SPREAD_S))
            victim = rng.choice(cohort.members)
            phases.append(victim.phase)
            cohort.end(victim)
            before = step.tip.number
            await cohort.start(victim)
            step = await trials.until_whole()
            assert step.tip.number > before, "a certificate counts the member again"
        trials.judge.catch_up()
        print(f"killed in {', '.join(phases)}; certificate {step.tip.number}")
        assert not trials.audit.doubts
        wrong = {name: finding for name, finding in trials.audit.findings.items() if finding}
        assert not wrong
        assert not trials.judge.false_successes()
        seqs: dict[str, int] = {}
        for entry in sorted(trials.audit.steps.values(), key=lambda entry: entry.tip.number):
            for peer, seq in entry.certificate.listed.items():
                assert seq > seqs.get(peer, 0), "an offer is listed once"
                seqs[peer] = seq
        states: dict[str, set[str]] = {}
        for member in cohort.members:
            for line in member.lines:
                if isinstance(line, Certified) and line.state:
                    states.setdefault(line.hash, set()).add(line.state)
        assert all(len(held) == 1 for held in states.values()), "one certificate, one state"


@pytest.mark.timeout(120)
async def test_members_killed_at_three_random_instants_resume(tmp_path: Path) -> None:
    await _killed_at_random_instants(tmp_path, 3, seed=1)


# Five times ten instants: each part is short, and can be played again by itself.
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(2, 7))
async def test_members_killed_at_fifty_random_instants_resume(tmp_path: Path, seed: int) -> None:
    await _killed_at_random_instants(tmp_path, 10, seed)
