"""Who is convicted, by what, for how long, and what accusing costs the accuser.

In virtual time, over the fakes of the ports.
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


class Member:
    """One node's convictions, with its lineage and its disk."""

    def __init__(
        self,
        swarm: FakeSwarm,
        name: int,
        *,
        knows: Summed | None = LIED,
        medium: MemoryMedium | None = None,
    ) -> None:
        self.medium = medium or MemoryMedium()
        self.said: list[JournalEvent] = []
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
                record=self.said.append,
            ),
            lineage=self.lineage,
            parameters=lambda: PARAMETERS,
        )

    @property
    def refused(self) -> list[tuple[str, PeerId]]:
        return [
            (event.reason, event.peer) for event in self.said if isinstance(event, InputRefused)
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


def test_a_liar_is_out_here_and_at_every_neighbour_and_after_a_restart() -> None:
    async def story(swarm: FakeSwarm) -> None:
        first, second = Member(swarm, 1), Member(swarm, 2)
        async with together(swarm, first, second):
            await first.fraud_proofs.convict(LIED.evidence(CHUNK), LIED.certificate)
            await trio.sleep(5)
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


def test_a_newcomer_hears_of_it_when_it_has_caught_up_and_once() -> None:
    async def story(swarm: FakeSwarm) -> None:
        old, new = Member(swarm, 1), Member(swarm, 2, knows=None)
        async with together(swarm, old, new):
            await old.fraud_proofs.convict(LIED.evidence(CHUNK), LIED.certificate)
            await trio.sleep(5)
            assert new.guilty == []
            new.lineage.add(LIED.certificate.raw)
            await old.fraud_proofs.announce()
            await trio.sleep(5)
            assert new.guilty == [LIAR]
            await old.fraud_proofs.announce()
            received = new.network.traffic().control_received
            for _ in range(3):
                await old.fraud_proofs.announce()
                await trio.sleep(5)
            assert new.network.traffic().control_received == received, "who knows is told nothing"

    virtually(story)


class Accuser(Member):
    """Tells of whom it likes, with what it likes."""

    async def accuse(self, peer: PeerId, evidence: Evidence) -> None:
        """As if we had convicted them."""
        proof = encode_evidence(evidence)
        verdict = replace(LIED.judge(LIED.evidence(CHUNK)), peer=peer)
        self.fraud_proofs._guilty[peer], self.fraud_proofs._unwritten[peer] = verdict, proof
        await self.fraud_proofs.announce()
        await trio.sleep(5)


def test_who_brings_what_proves_nothing_is_not_heard_again() -> None:
    honest = Summed()
    for evidence in (
        LIED.evidence(LIED.made.plan.borders[0], index=0),  # an honest sum
        replace(LIED.evidence(CHUNK), chunk=CHUNK + 1),
        honest.evidence(CHUNK),  # what it had to sign
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
                await accuser.accuse(LIAR, LIED.evidence(CHUNK))  # now the truth
                assert victim.guilty == []
                assert victim.network.traffic().control_received - before < 300, (
                    "nothing of it was read but the charge"
                )

        virtually(story)


def test_a_round_among_an_accusers_own_keys_convicts_nobody_and_its_proof_is_not_read() -> None:
    async def story(swarm: FakeSwarm) -> None:
        victim, accuser = Member(swarm, 1, knows=None), Accuser(swarm, 2)
        async with together(swarm, victim, accuser):
            await accuser.accuse(LIAR, LIED.evidence(CHUNK))
            assert victim.guilty == []
            assert victim.refused == []
            assert victim.network.traffic().control_received < 300

    virtually(story)


def test_charges_are_rationed() -> None:
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


def test_a_proof_on_disk_that_proves_nothing_is_said_and_the_others_count() -> None:
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
        warned = [event.message for event in member.said if isinstance(event, Warned)]
        assert len(warned) == 2
        assert "not evidence" in warned[0]
        assert "is right" in warned[1]

    virtually(story)


def test_a_full_disk_is_said_and_the_proof_written_later() -> None:
    async def story(swarm: FakeSwarm) -> None:
        member = Member(swarm, 1, medium=MemoryMedium(capacity_bytes=10))
        async with together(swarm, member):
            await member.fraud_proofs.convict(LIED.evidence(CHUNK), LIED.certificate)
            assert [event.code for event in member.said if isinstance(event, Warned)] == [
                "EVIDENCE"
            ]
            assert member.medium.proofs == {}
            member.medium.capacity_bytes = float("inf")
            await member.fraud_proofs.announce()
            assert len(member.medium.proofs[LIED.run]) == 1

    virtually(story)


def test_only_so_many_are_remembered() -> None:
    async def story(swarm: FakeSwarm) -> None:
        member = Member(swarm, 1)
        verdict = LIED.judge(LIED.evidence(CHUNK))
        for person in people(PROOFS_KEPT + 5):
            member.fraud_proofs._guilty[person.peer] = replace(verdict, peer=person.peer)
        member.fraud_proofs._guilty.pop(LIAR)
        async with together(swarm, member):
            await member.fraud_proofs.convict(LIED.evidence(CHUNK), LIED.certificate)
        assert len(member.guilty) == PROOFS_KEPT
        assert member.guilty[-1] == LIAR

    virtually(story)
