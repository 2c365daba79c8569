"""Tests the demo of serving: its client, its ranges, its result, and the whole story."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.demo.inference.inference_demo import InferenceDemoResult
from daemon.demo.inference.served_swarm import ranges_of
from daemon.demo.inference.text_client import DemoAnswer, TextClient
from protocol.errors import UserError
from protocol.inference.layers import LayerRange
from simulator.fakes.stage import FAKE_MODEL, FakeStage
from tests.daemon.api.local_generations import KEY, LocalGenerations, served

# Training takes half of it on two busy cores.
STORY_S = 600


@pytest.mark.parametrize(("layers", "stages"), [(2, 2), (30, 4), (7, 3)])
def test_ranges_cover_all_layers_once(layers: int, stages: int) -> None:
    ranges = ranges_of(layers, stages)
    assert [layer for part in ranges for layer in range(part.first, part.stop)] == list(
        range(layers)
    )
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@pytest.mark.real
async def test_text_client_reads_a_stream_and_its_error() -> None:
    whole = LayerRange(first=0, stop=FAKE_MODEL.layers)
    generations = LocalGenerations(FakeStage(whole, 100), FAKE_MODEL)
    async with served(generations, FAKE_MODEL) as url:
        client, seen = TextClient(url, KEY), []
        request: dict[str, object] = {"model": "fake", "prompt": "abc", "seed": 1}
        run = trio.to_thread.run_sync
        assert await run(client.models) == ["fake"]
        answer: DemoAnswer = await run(
            partial(client.answer, {**request, "max_tokens": 20}, seen.append)
        )
        assert (answer.tokens, answer.exact, answer.replays) == (20, True, 0)
        assert seen == list(range(1, len(seen) + 1))
        with pytest.raises(UserError, match="are free"):
            await run(partial(client.answer, {**request, "max_tokens": 2000}, seen.append))
        with pytest.raises(UserError, match="bearer token"):
            await run(TextClient(url, "other").models)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.alone
@pytest.mark.timeout(STORY_S)
def test_answer_of_a_killed_stage_is_that_of_hypergpud_sample(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli.main", "demo", "--inference", "--json"],
        capture_output=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=STORY_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    result = msgspec.json.decode(done.stdout, type=InferenceDemoResult)
    assert result.killed
    assert result.replays >= 1
    assert (result.exact, result.same, result.same_as_sample) == (True, True, True)
    # The demo removes its files.
    assert not list(tmp_path.iterdir())
