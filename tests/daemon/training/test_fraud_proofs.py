"""Tests whom `FraudProofs` convicts, for how long, and what a false accusation costs.

The tests run in virtual time over fakes of the ports.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from msgspec.structs import replace

from daemon.services.training.native.audit.fraud_proofs import FraudProofs
from daemon.services.training.native.engine_context import NodePorts
from daemon.swarm.lineage import Lineage
from protocol.averaging.sum_audit import Evidence, encode_evidence
from protocol.identity import PeerId
from protocol.journal import InputRefused, JournalEvent, Warned
from protocol.ports.disk import PROOFS_KEPT
from protocol.ports.offload import inline
from protocol.run.manifest import seal
from simulator.fakes.clock import run_virtual
from simulator.fakes.disk import MemoryDisk
from simulator.fakes.link import LinkModel, same_link
from simulator.fakes.medium import MemoryMedium
from simulator.fakes.swarm import FakeSwarm
from tests.protocol.averaging.summed_round import FOUR, PARAMETERS, SLICE, Summed, shifted
from tests.protocol.rounds import CHUNKS, people

LIED = Summed(wrong=shifted)
LIAR = FOUR[SLICE].peer
CHUNK = LIED.made.plan.borders[SLICE]
# Every announcement has arrived after this time.
SETTLE_S = 5


class Member:
    """One node's proofs, with its lineage and its disk."""

    def __init__(
        self,
        swarm: FakeSwarm,
        name: int,
        *,
        knows: Summed | None = LIED,
        medium: MemoryMedium | None = None,
    ) -> None:
        self.medium = medium or MemoryMedium()
        self.recorded: list[JournalEvent] = []
        self.network = swarm.network(bytes([name]) * 32)
        self.lineage = Lineage(LIED.run, LIED.manifest, CHUNKS)
        if knows is not None:
            self.lineage.add(knows.certificate.raw)
        self.fraud_proofs = FraudProofs(
            me=self.network.peer,
            signed=seal(LIED.manifest),
            ports=NodePorts(
                network=self.network,
                disk=MemoryDisk(self.medium),
                offload=inline,
                record=self.recorded.append,
            ),
            lineage=self.lineage,
            parameters=lambda: PARAMETERS,
        )

    @property
    def refused(self) -> list[tuple[str, PeerId]]:
        return [
            (event.reason, event.peer) for event in self.recorded if isinstance(event, InputRefused)
        ]

    @property
    def guilty(self) -> list[PeerId]:
        return list(self.fraud_proofs.guilty)


@asynccontextmanager
async def together(swarm: FakeSwarm, *members: Member) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:

        async def live(member: Member) -> None:
            async with member.network.running():
                await trio.sleep_forever()

        for member in members:
            nursery.start_soon(live, member)
        while any(len(member.network.links()) < len(members) - 1 for member in members):
            await trio.sleep(0.1)
        yield
        nursery.cancel_scope.cancel()


def virtually(story: Callable[[FakeSwarm], Awaitable[None]]) -> None:
    async def main() -> None:
        swarm = FakeSwarm(random.Random(3), same_link(LinkModel()))
        async with swarm.running():
            await story(swarm)

    run_virtual(main, seed=1)


def test_a_guilty_peer_is_convicted_by_every_neighbour_and_after_a_restart() -> None:
    async def story(swarm: FakeSwarm) -> None:
        first, second = Member(swarm, 1), Member(swarm, 2)
        async with together(swarm, first, second):
            await first.fraud_proofs.convict(LIED.evidence(CHUNK), LIED.certificate)
            await trio.sleep(SETTLE_S)
        for member in (first, second):
            assert member.guilty == [LIAR]
            assert member.refused == [("wrong_sum", LIAR)]
            again = Member(
                FakeSwarm(random.Random(4), same_link(LinkModel())),
                1,
                knows=None,
                medium=member.medium,
            )
            await again.fraud_proofs.resume()
            assert again.guilty == [LIAR]
            assert again.refused == [("wrong_sum", LIAR)]
            assert str(again.fraud_proofs.guilty[LIAR]) == str(first.fraud_proofs.guilty[LIAR])

    virtually(story)


def test_a_newcomer_receives_a_proof_once_when_it_has_caught_up() -> None:
    async def story(swarm: FakeSwarm) -> None:
        old, new = Member(swarm, 1), Member(swarm, 2, knows=None)
        async with together(swarm, old, new):
            await old.fraud_proofs.convict(LIED.evidence(CHUNK), LIED.certificate)
            await trio.sleep(SETTLE_S)
            assert new.guilty == []
            new.lineage.add(LIED.certificate.raw)
            await old.fraud_proofs.announce()
            await trio.sleep(SETTLE_S)
            assert new.guilty == [LIAR]
            await old.fraud_proofs.announce()
            received = new.network.traffic().control_received
            for _ in range(3):
                await old.fraud_proofs.announce()
                await trio.sleep(SETTLE_S)
            assert new.network.traffic().control_received == received, (
                "a peer that knows the proof receives nothing"
            )

    virtually(story)


class Accuser(Member):
    """Accuses any peer with any proof."""

    async def accuse(self, peer: PeerId, evidence: Evidence) -> None:
        """Announce the proof as if this node had convicted `peer`."""
        proof = encode_evidence(evidence)
        judgment = replace(LIED.judge(LIED.evidence(CHUNK)), peer=peer)
        self.fraud_proofs._guilty[peer], self.fraud_proofs._unwritten[peer] = judgment, proof
        await self.fraud_proofs.announce()
        await trio.sleep(SETTLE_S)


def test_a_peer_that_sends_an_invalid_proof_is_ignored_from_then_on() -> None:
    honest = Summed()
    for evidence in (
        # The sum of this slice is honest.
        LIED.evidence(LIED.made.plan.borders[0], index=0),
        replace(LIED.evidence(CHUNK), chunk=CHUNK + 1),
        # This sum is the one that the reducer had to sign.
        honest.evidence(CHUNK),
    ):

        async def story(swarm: FakeSwarm, evidence: Evidence = evidence) -> None:
            victim, accuser = Member(swarm, 1), Accuser(swarm, 2)
            async with together(swarm, victim, accuser):
                accused = evidence.result.peer
                await accuser.accuse(accused, evidence)
                assert victim.guilty == []
                assert victim.medium.proofs == {}
                assert victim.refused == [("bad_proof", accuser.network.peer)]
                assert "accused" in victim.fraud_proofs.distrusted(accuser.network.peer)
                before = victim.network.traffic().control_received
                accuser.fraud_proofs._announced.clear()
                accuser.fraud_proofs._guilty.pop(accused)
                # This accusation is true.
                await accuser.accuse(LIAR, LIED.evidence(CHUNK))
                assert victim.guilty == []
                assert victim.network.traffic().control_received - before < 300, (
                    "the victim reads only the accusation"
                )

        virtually(story)


def test_a_proof_about_an_invented_round_is_not_read() -> None:
    async def story(swarm: FakeSwarm) -> None:
        victim, accuser = Member(swarm, 1, knows=None), Accuser(swarm, 2)
        async with together(swarm, victim, accuser):
            await accuser.accuse(LIAR, LIED.evidence(CHUNK))
            assert victim.guilty == []
            assert victim.refused == []
            assert victim.network.traffic().control_received < 300

    virtually(story)


def test_accusations_are_rate_limited() -> None:
    async def story(swarm: FakeSwarm) -> None:
        victim, accuser = Member(swarm, 1, knows=None), Accuser(swarm, 2)
        async with together(swarm, victim, accuser):
            for _ in range(2 * PROOFS_KEPT + 40):
                accuser.fraud_proofs._announced.clear()
                await accuser.accuse(
                    LIAR, LIED.evidence(CHUNK)
                ) if not accuser.guilty else await accuser.fraud_proofs.announce()
            assert victim.network.refusals()["busy"] >= 20

    virtually(story)


def test_an_invalid_proof_on_disk_is_reported_and_the_others_count() -> None:
    async def story(swarm: FakeSwarm) -> None:
        medium = MemoryMedium()
        disk = MemoryDisk(medium)
        await disk.save_proof(LIED.run, b"what is this")
        await disk.save_proof(
            LIED.run, encode_evidence(LIED.evidence(LIED.made.plan.borders[0], index=0))
        )
        await disk.save_proof(LIED.run, encode_evidence(LIED.evidence(CHUNK)))
        member = Member(swarm, 1, medium=medium)
        await member.fraud_proofs.resume()
        assert member.guilty == [LIAR]
        warned = [event.message for event in member.recorded if isinstance(event, Warned)]
        assert len(warned) == 2
        assert "not evidence" in warned[0]
        assert "is right" in warned[1]

    virtually(story)


def test_a_full_disk_is_reported_and_the_proof_is_written_later() -> None:
    async def story(swarm: FakeSwarm) -> None:
        member = Member(swarm, 1, medium=MemoryMedium(capacity_bytes=10))
        async with together(swarm, member):
            await member.fraud_proofs.convict(LIED.evidence(CHUNK), LIED.certificate)
            assert [event.code for event in member.recorded if isinstance(event, Warned)] == [
                "EVIDENCE"
            ]
            assert member.medium.proofs == {}
            member.medium.capacity_bytes = float("inf")
            await member.fraud_proofs.announce()
            assert len(member.medium.proofs[LIED.run]) == 1

    virtually(story)


def test_the_number_of_kept_proofs_is_limited() -> None:
    async def story(swarm: FakeSwarm) -> None:
        member = Member(swarm, 1)
        judgment = LIED.judge(LIED.evidence(CHUNK))
        for person in people(PROOFS_KEPT + 5):
            member.fraud_proofs._guilty[person.peer] = replace(judgment, peer=person.peer)
        member.fraud_proofs._guilty.pop(LIAR)
        async with together(swarm, member):
            await member.fraud_proofs.convict(LIED.evidence(CHUNK), LIED.certificate)
        assert len(member.guilty) == PROOFS_KEPT
        assert member.guilty[-1] == LIAR

    virtually(story)
