"""`kill -9` of a node or of its worker at fifty random instants, with three real daemons.

Every victim resumes, every state is the certified one, and no sample counts twice.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import trio

from daemon.chain.home_runs import certificates_on_disk, runs_of
from daemon.disk.file_disk import FileDisk
from protocol.certificates.certificate import OpenCertificate
from protocol.identity import PeerId
from protocol.journal import RoundCertified, decode_event
from protocol.ports.offload import inline
from tests.e2e.swarm import Daemon, Swarm, certified

# Five parts of ten instants: each is short, and can be played again by itself.
INSTANTS = 10
SEEDS = range(5)
ROUND_S = 1.5
# A round with its exchange, so that an instant is in any of its phases.
SPREAD_S = 2.5
# A restart, a join, and a view that failed for want of the victim.
BACK_S = 120.0
# The log has the line at the instant of the event. The journal's last second is lost by a kill.
_TRAINED = re.compile(r"Trained ([\d,]+) samples? in ")

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("seed", SEEDS)
def test_three_daemons_survive_kills_at_fifty_random_instants(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with Swarm(tmp_path, round_s=ROUND_S) as swarm:
        first = swarm.begin()
        nodes = [first, *(swarm.join(name, first) for name in ("second", "third"))]
        peers = {node.name: node.now().you.peer for node in nodes}
        for node in nodes:
            _until_counted(swarm, node, peers[node.name], nodes, 0)
        for instant in range(INSTANTS):
            # The test kills by the clock and does not wait for the daemons.
            time.sleep(rng.uniform(0.0, SPREAD_S))
            victim = rng.choice(nodes)
            others = [node for node in nodes if node is not victim]
            kind = rng.choice(("node", "worker"))
            phase = victim.now().you.phase
            if kind == "node":
                victim.kill_alone()
                swarm.restart(victim, rng.choice(others))
                assert victim.now().you.peer == peers[victim.name]
            else:
                os.kill(victim.family()[-1].pid, signal.SIGKILL)
            # The certificate under way may count what the victim handed over before.
            reached = max(node.now().run.number for node in others) + 1
            began = time.monotonic()
            _until_counted(swarm, victim, peers[victim.name], others, reached)
            print(
                f"{instant + 1}: {kind} of {victim.name} in {phase or '-'}, round {reached};"
                f" counted again after {time.monotonic() - began:.1f} s"
            )
        swarm.stop(*nodes)
        agreement = swarm.agreement(*nodes)
        assert agreement.agreed, agreement.reason
        chains = {node.name: _chain(node) for node in nodes}
        longest = max(chains.values(), key=len)
        for node in nodes:
            _check_states(node, chains[node.name])
            _check_samples(node, peers[node.name], longest)
            assert "Traceback" not in node.log()


def _until_counted(
    swarm: Swarm, victim: Daemon, peer: PeerId, others: list[Daemon], after: int
) -> None:
    """Wait for a certificate above `after` that counts the peer."""

    def counted() -> bool:
        return any(
            number > after and peer in known.contributors
            for node in others
            if (status := node.status()) is not None
            for number, known in certified(status).items()
        )

    swarm.until(counted, f"the work of {victim.name} counts after round {after}", BACK_S)


def _chain(node: Daemon) -> list[OpenCertificate]:
    """The certificates on a stopped node's disk. Asserts that no offer is listed twice."""
    damage: list[str] = []
    (run,) = runs_of(node.home)
    chain = certificates_on_disk(node.home, run, damage.append)
    assert not damage
    last: dict[PeerId, int] = {}
    for certificate in chain:
        for peer, seq in certificate.listed.items():
            assert seq > last.get(peer, 0), f"offer {seq} of {peer} is listed twice"
            last[peer] = seq
    return chain


def _check_states(node: Daemon, chain: list[OpenCertificate]) -> None:
    """Every state that the node computed is the one that the certificate names."""
    named = {certificate.hash.hex(): certificate.outcome.state.hex() for certificate in chain}
    computed = [
        event
        for line in (node.home / "journal.jsonl").read_bytes().split(b"\n")[:-1]
        if isinstance(event := decode_event(line), RoundCertified)
        and event.state_digest
        and event.certificate in named
    ]
    assert computed
    for event in computed:
        assert event.state_digest == named[event.certificate], event.number


def _check_samples(node: Daemon, peer: PeerId, chain: list[OpenCertificate]) -> None:
    """What is certified and what waits was trained, each sample once."""
    counted = sum(
        certificate.plan.offers[certificate.plan.index[peer]].samples
        for certificate in chain
        if peer in certificate.listed
    )
    (run,) = runs_of(node.home)
    record = trio.run(FileDisk(node.home, inline).load_ledger, run.run)
    assert record is not None
    pending = record.weight + record.samples + record.later_samples
    trained = sum(int(number.replace(",", "")) for number in _TRAINED.findall(node.log()))
    print(f"{node.name}: trained {trained:,}, counted {counted:,}, pending {pending:,}")
    assert counted + pending <= trained, "a sample counts twice"
    # A kill loses what was not handed over. Most of the work is in certificates.
    assert counted > trained / 2
