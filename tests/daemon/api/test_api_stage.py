"""Tests the API over the real process of a stage: answers at once are those of requests alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from daemon.device.process.local_model import open_local_model
from daemon.device.settings import WorkerSettings
from protocol.inference.layers import LayerRange
from tests.daemon.api.local_generations import LocalGenerations, calling, client, served
from tests.daemon.device.stages.run_models import write_byte_gpt

pytestmark = pytest.mark.real

CLIENTS, TOKENS = 4, 40


async def test_answers_made_at_once_are_those_of_requests_alone(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_byte_gpt(file)
    model = await open_local_model(file, "bytes", WorkerSettings(device="cpu", threads=1))
    whole = LayerRange(first=0, stop=model.manifest.layers)
    async with model.stage(whole, 1024) as stage:
        made = LocalGenerations(stage, model.manifest)
        async with served(made, model.manifest, model.tokenizer()) as url:
            one = client(url)

            def ask(number: int) -> Any:
                found = one.completions.create(
                    model="bytes", prompt=f"def f{number}(", max_tokens=TOKENS, seed=number
                )
                return found.choices[0].text

            alone = [await calling(lambda number=number: ask(number)) for number in range(CLIENTS)]
            together = [""] * CLIENTS

            async def again(number: int) -> None:
                together[number] = await calling(lambda: ask(number))

            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(again, number)
    assert together == alone
    assert len(set(alone)) == CLIENTS
    assert made.open == 0
