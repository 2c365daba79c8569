"""The named stories of serving, and a random one.

Each seed chooses other hops and other tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import trio

from daemon.services.inference.chain import Patience
from daemon.services.inference.generation import Generation, GenerationOptions
from protocol.errors import UserError
from protocol.inference.audit import StageAudited
from protocol.inference.recovery_events import WaitsForLayers
from protocol.ports.stage import Activations
from simulator.inference.stage_world import expected_tokens, generate, request
from simulator.inference.story import LAYER_S, LAYERS, RANGES, TOKENS, Act, Play
from simulator.inference.stranger import positions_skipped, replayed_steps

LONG_PROMPT = tuple(bytes(range(200)) * 2)


async def _calm(play: Play) -> None:
    play.add_twice()
    async with play.world.client() as client:
        await play.answer(client)
    play.check(play.replays == 0 and not play.losses, "a hop was lost without a fault")


async def _killed_in_decode(play: Play) -> None:
    play.add_twice()
    place, when = play.rng.randrange(len(RANGES)), play.rng.randrange(1, TOKENS)

    def kill(count: int, generation: Generation) -> None:
        if count == when:
            play.world.kill(play.holder(generation, place))

    async with play.world.client() as client:
        await play.answer(client, kill)
    play.check(play.replays == 1 and play.exact, "one exact replay is wanted")
    play.check_gap(when + 19)


async def _killed_in_prefill(play: Play) -> None:
    play.add_twice()
    wanted = request(tokens=8, prompt=LONG_PROMPT)
    first = RANGES[play.rng.randrange(len(RANGES))][0]
    # The prompt takes 400 tokens through 6 layers.
    wait_s = play.rng.uniform(0.2, 400 * LAYERS * LAYER_S)

    async def kill() -> None:
        await trio.sleep(wait_s)
        busy = [node for node in play.world.nodes if node.stage.open_generations]
        play.world.kill(next(node for node in busy if node.stage.layers.first == first))

    async with play.world.client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        options = GenerationOptions(audit_share=0.0)
        async with client.generation(wanted, options, play.events.append) as generation:
            while await generation.next_token() is not None:
                pass
    play.tokens, play.replays, play.exact = 8, generation.replays, generation.exact
    alone = await expected_tokens(wanted)
    play.check(generation.tokens == alone, "the tokens are not those of one process")
    play.check(generation.exact and generation.replays == 1, "one exact replay is wanted")


async def _slow_hop(play: Play) -> None:
    play.add_twice()
    place, when = play.rng.randrange(len(RANGES)), play.rng.randrange(1, TOKENS)

    def hang(count: int, generation: Generation) -> None:
        if count == when:
            play.world.pause(play.holder(generation, place))

    async with play.world.client() as client:
        await play.answer(client, hang)
    play.check(play.losses == ("slow",), f"the losses are {play.losses}")
    play.check_gap(when + 19)


async def _two_hops(play: Play) -> None:
    play.add_twice()
    places = play.rng.sample(range(len(RANGES)), 2)
    tokens = play.rng.choices(range(1, TOKENS), k=2)
    kills = list(zip(tokens, places, strict=True))

    def kill(count: int, generation: Generation) -> None:
        for when, place in kills:
            if count == when:
                play.world.kill(play.holder(generation, place))

    async with play.world.client() as client:
        await play.answer(client, kill)
    play.check(play.replays == 2 and play.exact, "two exact replays are wanted")


async def _layers_come_back(play: Play) -> None:
    for first, stop in RANGES:
        play.world.add(first, stop, layer_s=LAYER_S)
    place, when = play.rng.randrange(len(RANGES)), play.rng.randrange(1, TOKENS)
    away_s = play.rng.uniform(5, 50)

    async def come_back() -> None:
        await trio.sleep(away_s)
        play.world.add(*RANGES[place], layer_s=LAYER_S)

    async with play.world.client() as client, trio.open_nursery() as nursery:

        def kill(count: int, generation: Generation) -> None:
            if count == when:
                play.world.kill(play.holder(generation, place))
                nursery.start_soon(come_back)

        await play.answer(client, kill)
    waits = [event for event in play.events if isinstance(event, WaitsForLayers)]
    first, stop = RANGES[place]
    named = {str(layers) for wait in waits for layers in wait.missing}
    play.check(named == {f"{first}:{stop}"}, f"the missing layers are named {named}")
    play.check(play.exact and play.gap_s <= away_s + 6, "the answer did not go on")


async def _nobody_serves(play: Play) -> None:
    for first, stop in RANGES:
        play.world.add(first, stop, layer_s=LAYER_S)
    place = play.rng.randrange(len(RANGES))
    first, stop = RANGES[place]

    def kill(count: int, generation: Generation) -> None:
        if count == 9:
            play.world.kill(play.holder(generation, place))

    options = GenerationOptions(patience=Patience(resume_s=20))
    async with play.world.client() as client:
        try:
            await generate(client, request(), at=kill, options=options, events=play.events)
        except UserError as error:
            named = f"layers {first} to {stop - 1}" in error.what
            play.check(named and f"--layers {first}:{stop}" in error.fix, f"it says {error.what}")
            return
    play.check(False, "an answer came without its layers")


async def _cache_exhausted(play: Play) -> None:
    play.world.add(0, LAYERS, layer_s=LAYER_S, cache_tokens=100)
    options = GenerationOptions(patience=Patience(start_s=1))
    async with play.world.client() as client:
        async with client.generation(request(tokens=60)) as first:
            await first.next_token()
            try:
                await generate(client, request(tokens=60), options=options)
            except UserError as error:
                play.check(error.code == "STAGES_FULL", f"it says {error.what}")
            else:
                play.check(False, "a stage took more than its cache holds")
            while await first.next_token() is not None:
                pass
        # The stage announces its free cache every two seconds.
        await trio.sleep(5)
        await play.answer(client)


async def _lying_hop(play: Play) -> None:
    place = play.rng.randrange(len(RANGES))
    for index, (first, stop) in enumerate(RANGES):
        for _ in range(3 if index == place else 2):
            play.world.add(first, stop, layer_s=LAYER_S)
    liar: list[str] = []

    def lie(count: int, generation: Generation) -> None:
        if count == 0 or liar:
            return
        node = play.holder(generation, place)
        node.stage.change_results(_coarse)
        liar.append(node.peer)

    options = GenerationOptions(audit_share=1.0)
    async with play.world.client() as client:
        async with client.generation(request(tokens=6), options, play.events.append) as made:
            while await made.next_token() is not None:
                lie(len(made.tokens), made)
            await made.audit()
        named = {event.wrong for event in play.events if isinstance(event, StageAudited)} - {""}
        play.check(named == set(liar), f"the audit names {named or 'nobody'}")
        again = await play.answer(client, options=options)
        play.check(liar[0] not in again.peers, "the liar is used again")
    play.check(liar[0] not in play.world.receipts, "the liar got a receipt")


def _coarse(result: Activations) -> Activations:
    """Round to steps of a 127th of the largest value, as int8 does."""
    step = np.abs(result).max() / 127
    rounded: Activations = (np.round(result / step) * step).astype(np.float32)
    return rounded


async def random_faults(play: Play) -> None:
    """Kill, pause and restart up to four hops at random tokens; each range keeps a holder."""
    play.add_twice()
    left = dict.fromkeys(range(len(RANGES)), 1)
    acts = {
        play.rng.randrange(1, TOKENS): (
            play.rng.randrange(len(RANGES)),
            play.rng.choice(("kill", "pause", "restart")),
        )
        for _ in range(play.rng.randrange(1, 5))
    }

    async with play.world.client() as client:

        def act(count: int, generation: Generation) -> None:
            place, kind = acts.pop(count, (0, ""))
            if not kind:
                return
            node = play.holder(generation, place)
            if kind == "restart":
                node.stage.restart()
            elif left[place]:
                left[place] -= 1
                (play.world.kill if kind == "kill" else play.world.pause)(node)

        await play.answer(client, act)
    play.check(play.exact, "an answer of equal kernels is inexact")


STORIES: Mapping[str, Act] = {
    "calm": _calm,
    "killed-in-decode": _killed_in_decode,
    "killed-in-prefill": _killed_in_prefill,
    "slow-hop": _slow_hop,
    "two-hops": _two_hops,
    "layers-come-back": _layers_come_back,
    "nobody-serves": _nobody_serves,
    "cache-exhausted": _cache_exhausted,
    "lying-hop": _lying_hop,
    "replayed-steps": replayed_steps,
    "positions-skipped": positions_skipped,
}
