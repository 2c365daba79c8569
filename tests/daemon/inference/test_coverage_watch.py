"""An observer sees which layers the stages of a swarm serve, and how a gap begins and ends."""

from __future__ import annotations

import random

import trio

from daemon.services.inference.coverage_watch import MAX_MODELS, CoverageWatch
from daemon.services.inference.model_exchange import (
    MODEL_PROTOCOL,
    REQUEST_BYTES,
    fetch_model,
)
from daemon.services.inference.service import LOOK_S
from daemon.swarm.frames import FrameReader, frame
from protocol.inference.announcement import ANNOUNCEMENT_LIFE_S
from protocol.journal import CoverageChanged, CoverageReport, JournalEvent
from protocol.ports.byte_stream import ByteStream
from simulator.fakes.network import FakeNetwork
from simulator.inference.stage_world import CLIENT, MODEL, InferenceWorld, inference_world


async def watch(world: InferenceWorld, network: FakeNetwork, events: list[JournalEvent]) -> None:
    """Run an observer that is connected to the first node."""
    async with network.running(), trio.open_nursery() as nursery:
        nursery.start_soon(
            CoverageWatch(network, events.append, world.refuse, random.Random(4)).run
        )
        await trio.sleep(2 * LOOK_S)
        await fetch_model(network, world.nodes[0].peer)
        await trio.sleep_forever()


async def test_watch_reports_stages_gaps_and_recovery() -> None:
    events: list[JournalEvent] = []
    async with inference_world() as world, trio.open_nursery() as nursery:
        for first in (0, 2, 4):
            world.add(first, first + 2)
        nursery.start_soon(watch, world, world.swarm.network(CLIENT), events)
        await trio.sleep(90)
        changes = [one for one in events if isinstance(one, CoverageChanged)]
        assert [(one.missing, one.model) for one in changes][-1] == ("", MODEL.hex())
        reports = [one for one in events if isinstance(one, CoverageReport)]
        assert sorted((one.first, one.stop) for one in reports[-1].stages) == [
            (0, 2),
            (2, 4),
            (4, 6),
        ]

        world.kill(world.nodes[2])
        await trio.sleep(2 * ANNOUNCEMENT_LIFE_S)
        changes = [one for one in events if isinstance(one, CoverageChanged)]
        assert changes[-1].missing == "layers 4 to 5"
        world.add(4, 6)
        await trio.sleep(2 * ANNOUNCEMENT_LIFE_S)
        changes = [one for one in events if isinstance(one, CoverageChanged)]
        assert changes[-1].missing == ""
        assert 0 < changes[-1].gap_s < 3 * ANNOUNCEMENT_LIFE_S
        assert not world.refusals
        nursery.cancel_scope.cancel()


async def test_watch_refuses_what_is_no_model_and_goes_on() -> None:
    events: list[JournalEvent] = []

    async def lie(stream: ByteStream) -> None:
        await FrameReader(stream).expect_frame(REQUEST_BYTES)
        await stream.send_all(frame(b"no model at all"))
        await stream.send_eof()

    async with inference_world() as world, trio.open_nursery() as nursery:
        world.add(0, 6)
        liar = world.swarm.network(b"liar" + bytes(28))
        liar.serve(MODEL_PROTOCOL, lie)
        network = world.swarm.network(CLIENT)

        async def serve_lies() -> None:
            async with liar.running():
                await trio.sleep_forever()

        nursery.start_soon(serve_lies)
        nursery.start_soon(watch, world, network, events)
        await trio.sleep(3 * LOOK_S)
        stream = await network.open_stream(liar.peer, MODEL_PROTOCOL)
        await stream.aclose()
        await trio.sleep(60)
        assert any(reason == "malformed" for reason, _ in world.refusals)
        assert any(isinstance(one, CoverageReport) for one in events)
        assert len({one.model for one in events if isinstance(one, CoverageReport)}) <= MAX_MODELS
        nursery.cancel_scope.cancel()
