"""The manifest handshake: each side learns which rules the other knows."""

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


class Handshake:
    """A member that serves `signed`, and a joiner that asks the member."""

    def __init__(self, signed: SignedManifest) -> None:
        self.signed = signed
        self.swarm = FakeSwarm(random.Random(1))
        self.member, self.joiner = self.swarm.network(b"m" * 32), self.swarm.network(b"j" * 32)
        self.refused: list[tuple[str, str, str]] = []
        self.events: list[JournalEvent] = []

    def serve(self) -> None:
        serve_manifest(
            self.member,
            self.signed,
            lambda reason, peer, detail: self.refused.append((reason, peer, detail)),
            self.events.append,
        )

    async def fetch(self, known: Collection[int]) -> SignedManifest:
        async with self.swarm.running(), self.member.running(), self.joiner.running():
            return await fetch_manifest(self.joiner, self.member.peer, known)


@pytest.mark.parametrize("rules", [2, 3])
def test_a_joiner_that_knows_the_rules_gets_the_manifest_without_a_refusal(rules: int) -> None:
    handshake = Handshake(seal(replace(PLAIN, rules=rules)))
    handshake.serve()

    async def main() -> None:
        assert await handshake.fetch({2, 3}) == handshake.signed

    run_virtual(main)
    assert handshake.refused == []


def test_a_joiner_with_other_rules_gets_the_manifest_and_the_member_warns_once() -> None:
    handshake = Handshake(seal(replace(PLAIN, rules=3)))
    handshake.serve()

    async def main() -> None:
        async with (
            handshake.swarm.running(),
            handshake.member.running(),
            handshake.joiner.running(),
        ):
            for _ in range(3):
                assert (
                    await fetch_manifest(handshake.joiner, handshake.member.peer, {2})
                ).open().rules == 3

    run_virtual(main)
    reason = "it asked to join; it knows rules 2, and this run uses rules 3"
    assert handshake.refused == [("rules", handshake.joiner.peer, reason)] * 3
    (warned,) = handshake.events
    assert isinstance(warned, Warned)
    assert warned.message == f"{short(handshake.joiner.peer)} did not join: {reason}"


def test_a_joiner_of_the_first_rules_gets_the_manifest_and_the_member_notes_it() -> None:
    """Such a joiner sends no request. It reads one frame."""
    handshake = Handshake(seal(PLAIN))
    handshake.serve()

    async def main() -> None:
        async with (
            handshake.swarm.running(),
            handshake.member.running(),
            handshake.joiner.running(),
        ):
            stream = await handshake.joiner.open_stream(
                handshake.member.peer, FIRST_MANIFEST_PROTOCOL
            )
            reply = await FrameReader(stream).expect_frame(MAX_MANIFEST_BYTES)
            assert msgspec.msgpack.decode(reply, type=SignedManifest) == handshake.signed

    run_virtual(main)
    assert handshake.refused == [
        (
            "rules",
            handshake.joiner.peer,
            "it asked to join; it knows rules 1, and this run uses rules 3",
        )
    ]


def test_a_member_of_the_first_rules_is_asked_by_its_own_protocol() -> None:
    handshake = Handshake(seal(PLAIN))

    async def answer(stream: ByteStream) -> None:
        await stream.send_all(frame(msgspec.msgpack.encode(handshake.signed)))
        await stream.send_eof()

    handshake.member.serve(FIRST_MANIFEST_PROTOCOL, answer)

    async def main() -> None:
        assert await handshake.fetch({2}) == handshake.signed

    run_virtual(main)


def test_a_peer_without_a_run_refuses_the_request() -> None:
    handshake = Handshake(seal(PLAIN))

    async def main() -> None:
        async with (
            handshake.swarm.running(),
            handshake.member.running(),
            handshake.joiner.running(),
        ):
            with pytest.raises(Unreachable, match="refused a stream"):
                await fetch_manifest(handshake.joiner, handshake.member.peer)

    run_virtual(main)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"noise",
        msgspec.msgpack.encode([[0]]),
        msgspec.msgpack.encode([[2] * 33]),
        msgspec.msgpack.encode([["2"]]),
    ],
)
def test_a_malformed_request_gets_no_answer(request_bytes: bytes) -> None:
    handshake = Handshake(seal(PLAIN))
    handshake.serve()

    async def main() -> None:
        async with (
            handshake.swarm.running(),
            handshake.member.running(),
            handshake.joiner.running(),
        ):
            stream = await handshake.joiner.open_stream(handshake.member.peer, MANIFEST_PROTOCOL)
            await stream.send_all(frame(request_bytes))
            with pytest.raises(Unreachable):
                await FrameReader(stream).expect_frame(MAX_MANIFEST_BYTES)

    run_virtual(main)
