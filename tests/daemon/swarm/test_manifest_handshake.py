"""Asking a member which run it is in: each side hears which rules the other knows."""

from __future__ import annotations

import random
from collections.abc import Collection

import msgspec
import pytest
from msgspec.structs import replace

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.manifest_exchange import (
    FIRST_MANIFEST_PROTOCOL,
    MANIFEST_PROTOCOL,
    fetch_manifest,
    serve_manifest,
)
from protocol.errors import Unreachable
from protocol.identity import short
from protocol.journal import JournalEvent, Warned
from protocol.ports.byte_stream import ByteStream
from protocol.run.manifest import MAX_MANIFEST_BYTES, Manifest, SignedManifest, seal
from simulator.fakes.clock import run_virtual
from simulator.fakes.swarm import FakeSwarm

PLAIN = Manifest(name="run", task="none")


class Asked:
    """A member that serves `signed`, and one that asks it."""

    def __init__(self, signed: SignedManifest) -> None:
        self.signed = signed
        self.swarm = FakeSwarm(random.Random(1))
        self.member, self.joiner = self.swarm.network(b"m" * 32), self.swarm.network(b"j" * 32)
        self.refused: list[tuple[str, str, str]] = []
        self.told: list[JournalEvent] = []

    def served(self) -> None:
        serve_manifest(
            self.member,
            self.signed,
            lambda reason, peer, detail: self.refused.append((reason, peer, detail)),
            self.told.append,
        )

    async def answer(self, known: Collection[int]) -> SignedManifest:
        async with self.swarm.running(), self.member.running(), self.joiner.running():
            return await fetch_manifest(self.joiner, self.member.peer, known)


@pytest.mark.parametrize("rules", [2, 3])
def test_who_knows_the_rules_gets_the_manifest_and_nobody_is_named(rules: int) -> None:
    asked = Asked(seal(replace(PLAIN, rules=rules)))
    asked.served()

    async def main() -> None:
        assert await asked.answer({2, 3}) == asked.signed

    run_virtual(main)
    assert asked.refused == []


def test_who_does_not_is_told_and_the_member_hears_of_it() -> None:
    asked = Asked(seal(replace(PLAIN, rules=3)))
    asked.served()

    async def main() -> None:
        async with asked.swarm.running(), asked.member.running(), asked.joiner.running():
            for _ in range(3):
                assert (
                    await fetch_manifest(asked.joiner, asked.member.peer, {2})
                ).open().rules == 3

    run_virtual(main)
    said = "it asked to join; it knows rules 2, and this run uses rules 3"
    assert asked.refused == [("rules", asked.joiner.peer, said)] * 3
    (warned,) = asked.told
    assert isinstance(warned, Warned)
    assert warned.message == f"{short(asked.joiner.peer)} did not join: {said}"


def test_a_program_of_the_first_rules_gets_its_answer_and_the_member_hears_of_it() -> None:
    """It says nothing of itself, and reads one frame."""
    asked = Asked(seal(PLAIN))
    asked.served()

    async def main() -> None:
        async with asked.swarm.running(), asked.member.running(), asked.joiner.running():
            stream = await asked.joiner.open_stream(asked.member.peer, FIRST_MANIFEST_PROTOCOL)
            told = await FrameReader(stream).expect_frame(MAX_MANIFEST_BYTES)
            assert msgspec.msgpack.decode(told, type=SignedManifest) == asked.signed

    run_virtual(main)
    assert asked.refused == [
        (
            "rules",
            asked.joiner.peer,
            "it asked to join; it knows rules 1, and this run uses rules 2",
        )
    ]


def test_a_member_of_the_first_rules_is_asked_in_its_own_way() -> None:
    asked = Asked(seal(PLAIN))

    async def tell(stream: ByteStream) -> None:
        await stream.send_all(frame(msgspec.msgpack.encode(asked.signed)))
        await stream.send_eof()

    asked.member.serve(FIRST_MANIFEST_PROTOCOL, tell)

    async def main() -> None:
        assert await asked.answer({2}) == asked.signed

    run_virtual(main)


def test_a_peer_that_is_in_no_run_is_not_reached() -> None:
    asked = Asked(seal(PLAIN))

    async def main() -> None:
        async with asked.swarm.running(), asked.member.running(), asked.joiner.running():
            with pytest.raises(Unreachable, match="refused a stream"):
                await fetch_manifest(asked.joiner, asked.member.peer)

    run_virtual(main)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"noise",
        msgspec.msgpack.encode([[0]]),
        msgspec.msgpack.encode([[2] * 33]),
        msgspec.msgpack.encode([["2"]]),
    ],
)
def test_noise_in_the_place_of_a_request_gets_no_answer(said: bytes) -> None:
    asked = Asked(seal(PLAIN))
    asked.served()

    async def main() -> None:
        async with asked.swarm.running(), asked.member.running(), asked.joiner.running():
            stream = await asked.joiner.open_stream(asked.member.peer, MANIFEST_PROTOCOL)
            await stream.send_all(frame(said))
            with pytest.raises(Unreachable):
                await FrameReader(stream).expect_frame(MAX_MANIFEST_BYTES)

    run_virtual(main)
