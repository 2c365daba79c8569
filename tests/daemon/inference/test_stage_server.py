"""A stage among clients that send garbage, skip positions, or are many."""

from __future__ import annotations

import numpy as np
import pytest
import trio
from msgspec.structs import replace

from daemon.services.inference.chain import Patience
from daemon.services.inference.client import InferenceClient
from daemon.services.inference.connections import StageConnections
from daemon.services.inference.generation import GenerationOptions
from daemon.services.inference.hop_calls import HopCalls
from daemon.services.inference.stage_server import STEPS_PROTOCOL, UNREAD_S
from daemon.swarm.frames import FrameReader, frame
from protocol.errors import Unreachable, UserError
from protocol.inference.activations import encode_tokens
from protocol.inference.layers import LayerRange
from protocol.inference.messages import (
    CloseGeneration,
    Opened,
    OpenGeneration,
    Refused,
    StageReply,
    StageRequest,
    StepGeneration,
    Stepped,
    decode_reply,
    encode,
)
from protocol.inference.routing import Hop
from protocol.inference.stage_generations import LEASE_S
from protocol.ports.byte_stream import ByteStream
from simulator.fakes.network import FakeNetwork
from simulator.fakes.stage import FAKE_MODEL
from simulator.inference.stage_world import (
    CLIENT,
    MODEL,
    InferenceWorld,
    Node,
    expected_tokens,
    generate,
    inference_world,
    request,
)

NAME = b"n" * 16
WHOLE = LayerRange(first=0, stop=6)


def opening(**more: object) -> OpenGeneration:
    fields = {"model": MODEL, "layers": WHOLE, "cache_tokens": 64, "attempt": 1, **more}
    return OpenGeneration(number=1, generation=NAME, wire="float32", **fields)


def stepping(position: int, tokens: int = 1, data: bytes | None = None) -> StepGeneration:
    ids = np.arange(position, position + tokens, dtype=np.int32)
    return StepGeneration(
        number=2,
        generation=NAME,
        attempt=1,
        position=position,
        shapes=(tokens,),
        data=encode_tokens(ids) if data is None else data,
    )


class Stranger:
    """A peer that speaks to a stage as it likes."""

    def __init__(self, network: FakeNetwork, node: Node) -> None:
        self._network, self._node = network, node

    @property
    def peer(self) -> str:
        return self._network.peer

    async def open(self) -> ByteStream:
        return await self._network.open_stream(self._node.peer, STEPS_PROTOCOL)

    async def send(self, *requests: StageRequest | bytes) -> list[StageReply]:
        """Send messages over one stream, and wait for a reply to each."""
        stream = await self.open()
        reader, replies = FrameReader(stream), list[StageReply]()
        try:
            for one in requests:
                await stream.send_all(frame(one if isinstance(one, bytes) else encode(one)))
                replies.append(decode_reply(await reader.expect_frame(1 << 24)))
        finally:
            await stream.aclose()
        return replies


async def stranger(world: InferenceWorld, node: Node, nursery: trio.Nursery) -> Stranger:
    network = world.swarm.network(b"stranger" + bytes(24))

    async def live() -> None:
        async with network.running():
            await trio.sleep_forever()

    nursery.start_soon(live)
    await trio.sleep(3)
    return Stranger(network, node)


async def test_stage_repeats_an_answer_and_refuses_a_gap() -> None:
    async with inference_world() as world, trio.open_nursery() as nursery:
        node = world.add(0, 6)
        other = await stranger(world, node, nursery)
        opened, first = await other.send(opening(), stepping(0, 5))
        assert isinstance(opened, Opened)
        assert isinstance(first, Stepped)
        # A new stream, as after a break.
        again, gap, follows = await other.send(stepping(0, 5), stepping(7), stepping(5))
        assert again == first
        assert isinstance(gap, Refused)
        assert (gap.reason, gap.expected) == ("position", 5)
        assert isinstance(follows, Stepped)
        assert node.stage.steps == 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "bad",
    [
        stepping(0, 1, encode_tokens(np.array([256], np.int32))),
        stepping(0, 1, encode_tokens(np.array([-1], np.int32))),
        stepping(0, 2, encode_tokens(np.array([1], np.int32))),
        stepping(0, 1, b"abc"),
        stepping(0, 100),
    ],
)
async def test_stage_refuses_steps_that_it_cannot_compute(bad: StepGeneration) -> None:
    async with inference_world() as world, trio.open_nursery() as nursery:
        node = world.add(0, 6)
        other = await stranger(world, node, nursery)
        _, refused = await other.send(opening(), bad)
        assert isinstance(refused, Refused)
        assert refused.reason == "malformed"
        async with world.client() as client:
            assert len((await generate(client, request(tokens=5))).tokens) == 5
        nursery.cancel_scope.cancel()


async def test_stage_closes_a_stream_of_garbage_and_serves_others() -> None:
    async with inference_world() as world, trio.open_nursery() as nursery:
        node = world.add(0, 6)
        other = await stranger(world, node, nursery)
        for garbage in (b"\xff" * 40, b"", bytes(1 << 16)):
            with pytest.raises(Unreachable):
                await other.send(garbage)
        (refused,) = await other.send(opening(model=bytes(32)))
        assert isinstance(refused, Refused)
        assert refused.reason == "range"
        async with world.client() as client:
            wanted = request(tokens=5)
            assert (await generate(client, wanted)).tokens == await expected_tokens(wanted)
        nursery.cancel_scope.cancel()


async def test_fifty_generations_run_at_once_and_others_are_refused() -> None:
    wanted = request(tokens=14)
    room = len(wanted.prompt) + wanted.max_tokens - 1
    async with inference_world() as world:
        nodes = [world.add(0, 3, cache_tokens=50 * room), world.add(3, 6, cache_tokens=50 * room)]
        made, refused = list[list[int]](), list[str]()

        async def one(client: InferenceClient) -> None:
            options = GenerationOptions(patience=Patience(start_s=0))
            try:
                made.append((await generate(client, wanted, options=options)).tokens)
            except UserError as error:
                refused.append(error.code)

        async with world.client(CLIENT) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(150):
                    nursery.start_soon(one, client)
            assert refused == ["STAGES_FULL"] * 100
            assert made == [await expected_tokens(wanted)] * 50
        await trio.sleep(2)
        assert not any(node.stage.open_generations for node in nodes)


@pytest.mark.parametrize(
    "last",
    [
        opening(attempt=2),
        stepping(0, 1, b"abc"),
        CloseGeneration(number=2, generation=NAME, attempt=1),
    ],
    ids=["replaced", "malformed", "closed"],
)
async def test_stage_frees_a_cache_although_the_stream_breaks(
    last: StageRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inference_world() as world, trio.open_nursery() as nursery:
        node = world.add(0, 6)
        other = await stranger(world, node, nursery)
        await other.send(opening())
        close = node.stage.close

        async def close_later(generation: bytes) -> None:
            # Others' steps have their turn first.
            await trio.sleep(10)
            await close(generation)

        monkeypatch.setattr(node.stage, "close", close_later)

        async def ask() -> None:
            with pytest.raises(Unreachable):
                await other.send(last)

        nursery.start_soon(ask)
        await trio.sleep(1)
        world.swarm.kill(other.peer)
        await trio.sleep(2 * LEASE_S)
        assert node.stage.open_generations == 0
        nursery.cancel_scope.cancel()


async def test_stage_ends_the_stream_of_a_client_that_reads_no_answer() -> None:
    async with inference_world() as world, trio.open_nursery() as nursery:
        node = world.add(0, 6)
        other = await stranger(world, node, nursery)
        stream = await other.open()
        await stream.send_all(frame(encode(opening(cache_tokens=4096))))
        # Each answer is 256 rows of logits, 262 kB; the window of a stream has as much.
        for place in range(8):
            ids = encode_tokens(np.zeros(256, np.int32))
            step = stepping(256 * place, 256, ids)
            await stream.send_all(frame(encode(replace(step, shapes=(1,) * 256))))
            await trio.sleep(0.5)
        await trio.sleep(UNREAD_S)
        reader = FrameReader(stream)

        async def read_all() -> None:
            while True:
                await reader.expect_frame(1 << 20)

        with trio.fail_after(10), pytest.raises(Unreachable):
            await read_all()
        nursery.cancel_scope.cancel()


class LiarConnections(StageConnections):
    """Gets the same answer to every request, whatever was asked."""

    async def ask(self, peer: str, request: StageRequest) -> StageReply:
        await trio.lowlevel.checkpoint()
        return Opened(number=1, position=0, lease_s=30.0)


async def test_wrong_answer_to_the_close_of_a_generation_ends_no_client() -> None:
    async with inference_world() as world:
        connections = LiarConnections(world.swarm.network(CLIENT), 1 << 20)
        calls = HopCalls(connections, FAKE_MODEL, MODEL, NAME, 64, "float32")
        hop = Hop(peer="liar", layers=WHOLE, kernel="k", token_s=0.0)
        await calls.close(await calls.open(hop))


async def test_token_that_the_model_does_not_have_is_the_prompt_s_error() -> None:
    async with inference_world() as world:
        world.add(0, 6)
        async with world.client() as client:
            with pytest.raises(UserError, match="256 tokens") as caught:
                client.generation(request(prompt=[3, 256]))
            assert caught.value.code == "PROMPT"
