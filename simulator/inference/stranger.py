"""Stories of a client that repeats steps and skips positions."""

from __future__ import annotations

import numpy as np
import trio
from msgspec.structs import replace

from daemon.services.inference.stage_server import STEPS_PROTOCOL
from daemon.swarm.frames import FrameReader, frame
from protocol.inference.activations import encode_tokens
from protocol.inference.layers import LayerRange
from protocol.inference.messages import (
    OpenGeneration,
    Refused,
    StageReply,
    StageRequest,
    StepGeneration,
    Stepped,
    decode_reply,
    encode,
)
from simulator.inference.stage_world import MODEL
from simulator.inference.story import LAYER_S, LAYERS, Play

NAME = b"n" * 16
MAX_REPLY_BYTES = 1 << 20


async def replayed_steps(play: Play) -> None:
    """A client that sends each step again gets the stored answer, and nothing is computed twice."""
    node = play.world.add(0, LAYERS, layer_s=LAYER_S)
    step = _stepping(0, 5)
    async with play.world.client():
        replies = await _send(play, _opening(), step, step, replace(step, number=9))
    answers = {one.data for one in replies[1:] if isinstance(one, Stepped)}
    steps = sum(isinstance(one, Stepped) for one in replies)
    play.check(steps == 3 and len(answers) == 1, "a repeat got another answer")
    play.check(node.stage.steps == 1, f"{node.stage.steps} steps were computed")


async def positions_skipped(play: Play) -> None:
    """A gap is refused with the position that follows, and the generation goes on there."""
    node = play.world.add(0, LAYERS, layer_s=LAYER_S)
    gap = play.rng.randrange(6, 40)
    async with play.world.client():
        replies = await _send(play, _opening(), _stepping(0, 5), _stepping(gap), _stepping(5))
    refused, follows = replies[2:]
    right = isinstance(refused, Refused) and (refused.reason, refused.expected) == ("position", 5)
    play.check(right and isinstance(follows, Stepped), f"it answered {refused}")
    play.check(node.stage.steps == 2, f"{node.stage.steps} steps were computed")


def _opening() -> OpenGeneration:
    return OpenGeneration(
        number=1,
        generation=NAME,
        attempt=1,
        model=MODEL,
        layers=LayerRange(first=0, stop=LAYERS),
        cache_tokens=64,
        wire="float32",
    )


def _stepping(position: int, tokens: int = 1) -> StepGeneration:
    ids = np.arange(position, position + tokens, dtype=np.int32)
    return StepGeneration(
        number=2,
        generation=NAME,
        attempt=1,
        position=position,
        shapes=(tokens,),
        data=encode_tokens(ids),
    )


async def _send(play: Play, *requests: StageRequest) -> list[StageReply]:
    """Send requests to the first stage over a stream of its own, each after the last reply."""
    network = play.world.swarm.network(b"stranger" + bytes(24))
    replies: list[StageReply] = []
    async with network.running():
        await trio.sleep(3)
        stream = await network.open_stream(play.world.nodes[0].peer, STEPS_PROTOCOL)
        reader = FrameReader(stream)
        for one in requests:
            await stream.send_all(frame(encode(one)))
            replies.append(decode_reply(await reader.expect_frame(MAX_REPLY_BYTES)))
        await stream.aclose()
    return replies
