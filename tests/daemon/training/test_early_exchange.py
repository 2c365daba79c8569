"""Results in pieces before the inclusion: the same bytes, and no trust in what is unproven."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import trio
from msgspec.structs import replace

from daemon.services.training.native.exchange import bulk_receiver, early_sum
from daemon.services.training.native.exchange.all_reduce import EARLY_S
from daemon.services.training.native.exchange.bulk_headers import (
    ABILITIES,
    BulkHeader,
    ResultPieceHeader,
    ResultProofHeader,
    SliceHeader,
    read_header,
)
from daemon.swarm.frames import LENGTH_BYTES, frame
from protocol.ports.byte_stream import ByteStream
from protocol.round.events import ContributionsReceived, ResultReceived
from protocol.rules.versions import RULES_2
from simulator.fakes.clock import run_virtual
from simulator.fakes.stream import FakeStream
from tests.daemon.training.exchange_world import Member, exchange_world

ALL = (0, 1, 2)
# The parts and results of the world take 0.5 s, its round trips 0.1 s.
WHOLE_S = 2.0


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use pieces of a few chunks, so that small slices have many."""
    monkeypatch.setattr(early_sum, "LEAST_PIECE_BYTES", 1 << 15)


class _Altered:
    """A bulk stream that alters the payloads behind headers of a kind, and notes all headers."""

    def __init__(self, inner: ByteStream, kind: type, seen: list[object]) -> None:
        self.inner, self._kind, self._seen = inner, kind, seen
        self._missing_bytes = 0
        self._alters = False

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def send_all(self, data: bytes | memoryview) -> None:
        if self._missing_bytes:
            self._missing_bytes -= len(data)
            if self._alters:
                data = bytes(data[:-4]) + bytes(4)
        else:
            header = self.header(read_header(bytes(data)[LENGTH_BYTES:]))
            self._seen.append(header)
            self._missing_bytes = header.size
            self._alters = isinstance(header, self._kind)
            data = frame(msgspec.msgpack.encode(header))
        await self.inner.send_all(data)

    def header(self, header: BulkHeader) -> BulkHeader:
        """Return the header to send in place of this one."""
        return header


class _Renamed(_Altered):
    """A bulk stream that names another slice in its pieces."""

    def header(self, header: BulkHeader) -> BulkHeader:
        named = isinstance(header, ResultPieceHeader)
        return msgspec.structs.replace(header, slice=0) if named else header


class _Never:
    """No header is of this type."""


def _watch(seen: list[object], kind: type = _Never) -> Callable[[ByteStream], ByteStream]:
    return lambda stream: _Altered(stream, kind, seen)  # type: ignore[return-value]


def _results(member: Member) -> int:
    return sum(isinstance(event, ResultReceived) for event in member.events)


@pytest.mark.parametrize("codec", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("parameters", [4096 * 300 + 5, 4096 * 3, 5000])
def test_pieces_make_the_bytes_of_the_whole_slice(codec: str, parameters: int) -> None:
    seen: list[object] = []

    async def story() -> None:
        async with exchange_world(codec, parameters, tampered={0: _watch(seen)}) as world:
            world.begin()
            await trio.sleep(WHOLE_S)
            before = [header for header in seen if isinstance(header, ResultPieceHeader)]
            assert before, "the result left before the inclusion"
            assert not any(_results(member) for member in world.members), "nothing is proven yet"
            began = trio.current_time()
            found = await world.average(ALL)
            assert found == dict.fromkeys(ALL, world.root(ALL))
            # A member without a slice gets no part. Its stream is too young for pieces, so it gets
            # whole results.
            whole_s = 0.1 if parameters == 5000 else 0.0
            assert trio.current_time() - began <= whole_s, "nothing travels after the inclusion"
            after = [header for header in seen if isinstance(header, ResultPieceHeader)]
            assert len(after) == len(before)
            for index, member in enumerate(world.members):
                assert member.exchange is not None
                loses = codec != "float32" and world.plan.layout.sums(index)
                assert bool(member.exchange.lost_by_encoding) == loses

    run_virtual(story)


def test_results_flow_while_parts_still_arrive() -> None:
    """The first piece leaves before the last part has arrived."""
    seen: list[object] = []

    async def story() -> None:
        async with exchange_world(tampered={0: _watch(seen)}) as world:
            world.begin()
            member = world.members[0]
            while not any(isinstance(header, ResultPieceHeader) for header in seen):
                await trio.sleep(0.001)
            reports = [e for e in member.events if isinstance(e, ContributionsReceived)]
            assert len(reports[-1].contributors) < len(ALL)

    run_virtual(story)


@pytest.mark.parametrize("codec", ["float32", "int8"])
@pytest.mark.parametrize("late", [False, True])
def test_an_inclusion_without_a_member_discards_the_pieces(codec: str, late: bool) -> None:
    async def story() -> None:
        async with exchange_world(codec) as world:
            world.begin()
            await trio.sleep(WHOLE_S if late else 0.1)
            assert await world.average((0, 2)) == dict.fromkeys(ALL, world.root((0, 2)))
            assert not any(member.refusals for member in world.members)

    run_virtual(story)


def test_a_second_inclusion_discards_the_proven_pieces() -> None:
    async def story() -> None:
        async with exchange_world("int8") as world:
            world.begin()
            assert await world.average(ALL) == dict.fromkeys(ALL, world.root(ALL))
            assert await world.average((1, 2), 2) == dict.fromkeys(ALL, world.root((1, 2)))

    run_virtual(story)


def test_a_lie_in_a_part_reaches_no_signed_result() -> None:
    """Member 1 sends other bytes than it offered; they were summed, and nobody signs that sum."""
    seen: list[object] = []

    async def story() -> None:
        async with exchange_world(tampered={1: _watch([], SliceHeader), 0: _watch(seen)}) as world:
            world.begin()
            await trio.sleep(WHOLE_S)
            assert "bad_proof" in world.members[0].refusals
            assert any(isinstance(header, ResultPieceHeader) for header in seen)
            found = await world.average((0, 2), absent=[1])
            assert found == dict.fromkeys((0, 2), world.root((0, 2)))
            assert not any(isinstance(header, ResultProofHeader) for header in seen)

    run_virtual(story)


def test_a_proof_waits_for_its_inclusion_as_long_as_the_slowest_part_takes() -> None:
    """The first proof comes long before the inclusion where one link is slow."""

    async def story() -> None:
        async with exchange_world("int8") as world:
            world.begin()
            await trio.sleep(4 * EARLY_S)
            assert await world.average(ALL) == dict.fromkeys(ALL, world.root(ALL))
            assert not any(member.refusals for member in world.members)

    run_virtual(story)


def test_a_proof_for_rules_2_leaves_after_the_inclusion() -> None:
    """A member of an earlier release gives up a stream whose proof waits for its inclusion."""
    seen: list[object] = []

    async def story() -> None:
        async with exchange_world("int8", tampered={0: _watch(seen)}) as world:
            world.plan = replace(world.plan, rules=RULES_2)
            world.begin()
            await trio.sleep(WHOLE_S)
            assert not any(isinstance(header, ResultProofHeader) for header in seen)
            assert await world.average(ALL) == dict.fromkeys(ALL, world.root(ALL))
            assert any(isinstance(header, ResultProofHeader) for header in seen)

    run_virtual(story)


def test_a_stream_that_breaks_behind_its_proof_brings_both_again() -> None:
    async def story() -> None:
        async with exchange_world("int8") as world:
            world.begin()
            await trio.sleep(WHOLE_S)
            one, two = world.members[0].signer.peer, world.members[1].signer.peer
            world.swarm.sever(one, two)
            await trio.sleep(0.5)
            world.swarm.mend(one, two)
            assert await world.average(ALL) == dict.fromkeys(ALL, world.root(ALL))

    run_virtual(story)


def test_a_lie_in_a_piece_is_refused_and_the_others_go_on() -> None:
    async def story() -> None:
        async with exchange_world(tampered={1: _watch([], ResultPieceHeader)}) as world:
            world.begin()
            found = await world.average(ALL)
            assert found == {1: world.root(ALL)}, "the liar's slice does not count"
            assert "bad_proof" in world.members[0].refusals
            assert "bad_proof" in world.members[2].refusals

    run_virtual(story)


def test_pieces_of_anothers_slice_are_refused() -> None:
    async def story() -> None:
        async with exchange_world(
            tampered={1: lambda stream: _Renamed(stream, _Never, [])}  # type: ignore[dict-item,return-value]
        ) as world:
            world.begin()
            await trio.sleep(WHOLE_S)
            assert "not_member" in world.members[2].refusals

    run_virtual(story)


def test_a_receiver_of_an_earlier_release_gets_whole_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A receiver that announces nothing gets no piece and no proof."""
    seen: list[object] = []

    async def silent(stream: FakeStream, data: bytes | memoryview) -> None:
        if data != ABILITIES:
            await send_all(stream, data)

    send_all = FakeStream.send_all
    monkeypatch.setattr(FakeStream, "send_all", silent)

    async def story() -> None:
        async with exchange_world("int8", tampered={0: _watch(seen)}) as world:
            world.begin()
            assert await world.average(ALL) == dict.fromkeys(ALL, world.root(ALL))
            assert not any(
                isinstance(header, ResultPieceHeader | ResultProofHeader) for header in seen
            )

    run_virtual(story)
    assert bulk_receiver.ABILITIES == ABILITIES


def test_a_stream_that_breaks_in_a_part_costs_the_pieces_alone() -> None:
    async def story() -> None:
        async with exchange_world() as world:
            world.begin()
            await trio.sleep(0.15)
            one, two = world.members[0].signer.peer, world.members[1].signer.peer
            world.swarm.sever(one, two)
            await trio.sleep(0.5)
            world.swarm.mend(one, two)
            assert await world.average(ALL) == dict.fromkeys(ALL, world.root(ALL))

    run_virtual(story)
