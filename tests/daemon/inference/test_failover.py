"""Generations that lose their stages in virtual time: every token stays the same."""

from __future__ import annotations

import itertools

import pytest
import trio

from daemon.services.inference.chain import Patience
from daemon.services.inference.generation import Generation, GenerationOptions
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.inference.recovery_events import (
    GenerationEvent,
    HopsReplayed,
    HopWasLost,
    WaitsForLayers,
)
from simulator.fakes.stream import FakeStream
from simulator.inference.stage_world import (
    CLIENT,
    InferenceWorld,
    Node,
    expected_tokens,
    generate,
    inference_world,
    request,
)


def twice_three(world: InferenceWorld) -> None:
    """Six nodes: three ranges, each held twice."""
    for first in (0, 2, 4):
        for _ in range(2):
            world.add(first, first + 2)


def holder(world: InferenceWorld, generation: Generation, place: int) -> Node:
    """The node of the chain's hop `place`."""
    peer = generation.peers[place]
    return next(node for node in world.nodes if node.peer == peer)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_generation_through_stages_equals_one_process(temperature: float) -> None:
    wanted = request(temperature=temperature)
    async with inference_world() as world:
        twice_three(world)
        async with world.client() as client:
            made = await generate(client, wanted)
        assert made.tokens == await expected_tokens(wanted)
        assert made.exact
        assert made.finish == "length"
        await trio.sleep(2)
        assert not any(node.stage.open_generations for node in world.nodes), "a cache leaked"
        assert not world.refusals


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("when", [1, 7, 39])
async def test_generation_loses_a_hop_in_decode(place: int, when: int) -> None:
    wanted, events = request(), list[GenerationEvent]()
    async with inference_world() as world:
        twice_three(world)

        def kill(count: int, generation: Generation) -> None:
            if count == when:
                world.kill(holder(world, generation, place))

        async with world.client() as client:
            made = await generate(client, wanted, at=kill, events=events)
        assert made.tokens == await expected_tokens(wanted)
    assert made.exact
    assert made.replays == 1
    replayed = [event for event in events if isinstance(event, HopsReplayed)]
    assert [event.exact for event in replayed] == [True]
    assert replayed[0].tokens == len(wanted.prompt) + when - 1
    assert replayed[0].seconds < 2


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_generation_loses_a_hop_in_prefill(place: int) -> None:
    wanted = request(tokens=8, prompt=tuple(bytes(range(200)) * 2))
    async with inference_world() as world:
        for first in (0, 2, 4):
            for _ in range(2):
                world.add(first, first + 2, layer_s=0.001)

        async with world.client() as client, trio.open_nursery() as nursery:

            async def kill_soon() -> None:
                # The prompt takes 400 x 6 x 0.001 s.
                await trio.sleep(1.3)
                busy = [node for node in world.nodes if node.stage.open_generations]
                assert len(busy) == 3
                world.kill(
                    next(node for node in busy if node.stage._info.layers.first == 2 * place)
                )

            nursery.start_soon(kill_soon)
            made = await generate(client, wanted)
        assert made.tokens == await expected_tokens_in_chunks(wanted)
        assert made.exact
        assert made.replays == 1


async def test_generation_loses_all_hops_one_after_another() -> None:
    wanted = request()
    async with inference_world() as world:
        twice_three(world)
        killed: set[int] = set()

        def kill(count: int, generation: Generation) -> None:
            place = {5: 0, 6: 1, 30: 2}.get(count)
            if place is not None and place not in killed:
                killed.add(place)
                world.kill(holder(world, generation, place))

        async with world.client() as client:
            made = await generate(client, wanted, at=kill)
        assert made.tokens == await expected_tokens(wanted)
        assert made.exact
        assert made.replays == 3


async def test_generation_loses_two_hops_at_once() -> None:
    wanted = request()
    async with inference_world() as world:
        twice_three(world)

        def kill(count: int, generation: Generation) -> None:
            if count == 9:
                first, last = holder(world, generation, 0), holder(world, generation, 2)
                world.kill(first)
                world.kill(last)

        async with world.client() as client:
            made = await generate(client, wanted, at=kill)
        assert made.tokens == await expected_tokens(wanted)
        assert made.exact
        assert made.replays == 2


async def test_lost_hop_is_replaced_by_two_stages_that_split_its_layers() -> None:
    wanted = request()
    async with inference_world() as world:
        world.add(0, 1)
        middle = world.add(1, 5)
        world.add(1, 3)
        world.add(3, 5)
        world.add(5, 6)
        used: list[tuple[str, ...]] = []

        def kill(count: int, generation: Generation) -> None:
            used.append(generation.peers)
            if count == 9:
                assert middle.peer in generation.peers
                world.kill(middle)

        async with world.client() as client:
            made = await generate(client, wanted, at=kill)
        assert made.tokens == await expected_tokens(wanted)
        assert made.exact
        assert len(used[-1]) == 4


async def test_slow_hop_is_replaced_after_its_deadline() -> None:
    wanted, events = request(), list[GenerationEvent]()
    async with inference_world() as world:
        twice_three(world)
        times: list[float] = []

        def hang(count: int, generation: Generation) -> None:
            times.append(trio.current_time())
            if count == 9:
                world.swarm.pause(holder(world, generation, 1).peer)

        async with world.client() as client:
            made = await generate(client, wanted, at=hang, events=events)
        assert made.tokens == await expected_tokens(wanted)
    assert [event.kind for event in events if isinstance(event, HopWasLost)] == ["slow"]
    gap_s = max(later - now for now, later in itertools.pairwise(times))
    assert 2.0 <= gap_s < 3.5


async def test_slow_hop_without_another_holder_is_waited_for() -> None:
    wanted = request(tokens=12)
    async with inference_world() as world:
        world.add(0, 3)
        only = world.add(3, 6)

        def slow(count: int, generation: Generation) -> None:
            # Three layers of one token take six seconds.
            only.stage.layer_s = 2.0 if 3 <= count < 5 else 0.0

        async with world.client() as client:
            made = await generate(client, wanted, at=slow)
        assert made.tokens == await expected_tokens(wanted)
        assert made.replays == 0
        assert only.stage.steps == 12, "a repeated step is computed once"


async def test_generation_resumes_when_missing_layers_come_back() -> None:
    wanted, events = request(), list[GenerationEvent]()
    async with inference_world() as world:
        world.add(0, 2)
        only = world.add(2, 4)
        world.add(4, 6)

        async def come_back() -> None:
            await trio.sleep(45)
            world.add(2, 4)

        async with world.client() as client, trio.open_nursery() as nursery:

            def kill(count: int, generation: Generation) -> None:
                if count == 9:
                    world.kill(only)
                    nursery.start_soon(come_back)

            made = await generate(client, wanted, at=kill, events=events)
        assert made.tokens == await expected_tokens(wanted)
        # The waiting hops kept their caches for longer than a lease.
        assert made.exact
        assert made.replays == 1
    waits = [event for event in events if isinstance(event, WaitsForLayers)]
    assert [str(layers) for layers in waits[0].missing] == ["2:4"]


async def test_missing_layers_are_named_when_nobody_serves_them() -> None:
    async with inference_world() as world:
        world.add(0, 2)
        only = world.add(2, 6)

        def kill(count: int, generation: Generation) -> None:
            if count == 9:
                world.kill(only)

        options = GenerationOptions(patience=Patience(resume_s=20))
        async with world.client() as client:
            with pytest.raises(UserError, match="Nobody serves layers 2 to 5") as failed:
                await generate(client, request(), at=kill, options=options)
        assert failed.value.code == "NO_STAGE"
        assert "--layers 2:6" in failed.value.fix


async def test_stage_whose_process_restarted_gets_a_replay() -> None:
    wanted = request()
    async with inference_world() as world:
        world.add(0, 3)
        only = world.add(3, 6)

        def restart(count: int, generation: Generation) -> None:
            if count == 9:
                only.stage.restart()

        async with world.client() as client:
            made = await generate(client, wanted, at=restart)
        assert made.tokens == await expected_tokens(wanted)
        assert made.exact
        assert made.replays == 1


async def test_broken_connection_costs_no_replay() -> None:
    wanted = request()
    async with inference_world() as world:
        world.add(0, 3)
        only = world.add(3, 6)
        async with world.client() as client:
            broken = []

            def cut(count: int, generation: Generation) -> None:
                if count == 9:
                    broken.append(client._connections._open[only.peer])
                    broken[0].fail("cut by the test")

            made = await generate(client, wanted, at=cut)
            stream = broken[0].stream
            assert isinstance(stream, FakeStream)
            assert stream.closed, "a broken connection holds no stream of the stage"
        assert made.tokens == await expected_tokens(wanted)
        assert made.replays == 0


async def test_replay_on_another_kernel_is_marked_inexact() -> None:
    wanted = request()
    async with inference_world() as world:
        world.add(0, 3)
        only = world.add(3, 6)
        other = world.add(3, 6, kernel="other", fault=lambda result: result * 1.0000001)
        assert other

        def kill(count: int, generation: Generation) -> None:
            if count == 9:
                world.kill(only if only.peer in generation.peers else other)

        async with world.client() as client:
            made = await generate(client, wanted, at=kill)
        assert len(made.tokens) == 40
        assert not made.exact


async def test_fast_recovery_is_marked_inexact() -> None:
    options = GenerationOptions(recovery="fast")
    async with inference_world() as world:
        twice_three(world)

        def kill(count: int, generation: Generation) -> None:
            if count == 9:
                world.kill(holder(world, generation, 1))

        async with world.client() as client:
            made = await generate(client, request(), at=kill, options=options)
        assert made.replays == 1
        assert not made.exact


async def test_exhausted_caches_refuse_a_generation_at_its_beginning() -> None:
    async with inference_world() as world:
        world.add(0, 6, cache_tokens=100)
        options = GenerationOptions(patience=Patience(start_s=1))
        async with world.client() as client:
            async with client.generation(request(tokens=60)) as first:
                await first.next_token()
                with pytest.raises(UserError, match="no room") as failed:
                    await generate(client, request(tokens=60), options=options)
                assert failed.value.code == "STAGES_FULL"
                while await first.next_token() is not None:
                    pass
            await trio.sleep(3)
            assert len((await generate(client, request(tokens=60))).tokens) == 60


async def test_client_that_vanishes_costs_its_cache_for_one_lease() -> None:
    async with inference_world() as world:
        node = world.add(0, 6)

        async def vanish() -> None:
            async with world.client() as client, client.generation(request()) as generation:
                await generation.next_token()
                world.swarm.kill(Signer(CLIENT).peer)
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(vanish)
            await trio.sleep(5)
        assert node.stage.open_generations == 1
        await trio.sleep(35)
        assert node.stage.open_generations == 0


async def expected_tokens_in_chunks(wanted: object) -> list[int]:
    """The tokens of a swarm of one node, whose prompt is computed in the same chunks."""
    async with inference_world() as world:
        world.add(0, 6)
        async with world.client() as client:
            return (await generate(client, wanted)).tokens  # type: ignore[arg-type]
