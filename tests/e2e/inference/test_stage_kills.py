"""Kills stages with `kill -9` in the middle of answers: every token stays the same."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import trio

from daemon.device.process.local_model import open_local_model
from daemon.device.settings import WorkerSettings
from protocol.generation.sampler import choose_token
from protocol.inference.layers import LayerRange
from protocol.inference.recovery_events import HopsReplayed, HopWasLost
from tests.e2e.inference.stage_swarm import generate, request, stage_swarm

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(1800)]

POINTS = 20
TOKENS = 60


async def test_killed_stage_changes_no_token(tmp_path: Path) -> None:
    with stage_swarm(tmp_path) as swarm:
        swarm.start("0:1", "1:3", "1:3")
        async with swarm.client() as joined:
            wanted, events = request(TOKENS, 3.0), []
            undisturbed, _ = await generate(joined, wanted)
            assert len(set(undisturbed.tokens)) > 20, "the tokens vary too little to tell"
            made, killed = await generate(joined, wanted, {17: 1}, swarm, events)
            assert made.tokens == undisturbed.tokens
            assert made.exact
            assert [stage.layers for stage in killed] == ["1:3"]
            lost, replayed = events
            assert isinstance(lost, HopWasLost)
            assert lost.kind == "broken"
            assert isinstance(replayed, HopsReplayed)
            assert replayed.tokens == 9 + 16


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 3.0])
async def test_twenty_kills_at_random_tokens_change_no_token(
    tmp_path: Path, temperature: float
) -> None:
    source, wanted = random.Random(7), request(TOKENS, temperature)
    with stage_swarm(tmp_path) as swarm:
        swarm.start("0:1", "0:1", "1:2", "1:2", "2:3", "2:3")
        alone = await tokens_of_one_process(swarm.model, TOKENS, temperature)
        async with swarm.client() as joined:
            for _point in range(POINTS):
                # Every fourth answer loses two hops of different ranges.
                count = 2 if _point % 4 == 3 else 1
                places = source.sample(range(3), count)
                tokens = source.sample(range(1, TOKENS), count)
                kills = dict(zip(tokens, places, strict=True))
                made, killed = await generate(joined, wanted, kills, swarm)
                assert made.tokens == alone, f"kills {kills}"
                assert made.exact
                # A busy machine may also miss a deadline, which is one more replay.
                assert len(killed) == count <= made.replays
                for stage in killed:
                    stage.start(*swarm.addresses)
                for stage in killed:
                    await trio.to_thread.run_sync(stage.wait_ready)
                await swarm.until_known(joined, 6)


@pytest.mark.slow
async def test_stopped_stage_is_replaced_after_its_deadline(tmp_path: Path) -> None:
    with stage_swarm(tmp_path) as swarm:
        swarm.start("0:1", "1:3", "1:3")
        async with swarm.client() as joined:
            wanted = request(TOKENS, 3.0)
            undisturbed, _ = await generate(joined, wanted)
            events: list[object] = []
            async with joined.client.generation(wanted, report=events.append) as generation:
                while len(generation.tokens) < 20:
                    await generation.next_token()
                stopped = swarm.of(generation.peers[1])
                stopped.stop_signal(signal.SIGSTOP)
                began_s = time.monotonic()
                await generation.next_token()
                gap_s = time.monotonic() - began_s
                while await generation.next_token() is not None:
                    pass
                stopped.stop_signal(signal.SIGCONT)
                assert generation.tokens == undisturbed.tokens
                assert generation.exact
            assert [event.kind for event in events if isinstance(event, HopWasLost)] == ["slow"]
            assert gap_s < 10.0


async def tokens_of_one_process(model: Path, count: int, temperature: float) -> list[int]:
    """The tokens of the whole model in one stage, without a network."""
    settings = WorkerSettings(device="cpu", threads=1)
    local = await open_local_model(model, "gpt", settings)
    whole, wanted = LayerRange(first=0, stop=local.manifest.layers), request(count, temperature)
    made: list[int] = []
    position, chunk = 0, np.array(wanted.prompt, np.int32)
    async with local.stage(whole, 96) as stage:
        await stage.describe()
        await stage.open(b"alone", whole, 96)
        while len(made) < count:
            logits = (await stage.step(b"alone", position, chunk))[0]
            position += len(chunk)
            made.append(choose_token(logits, wanted.rules, len(made)))
            chunk = np.array(made[-1:], np.int32)
    return made
