"""A machine without the model's files fetches a stage's weights from another, and serves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.node.model_fetch import FOLDER
from tests.e2e.inference.stage_swarm import StageDaemon, generate, request, stage_swarm

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]


async def test_newcomer_serves_layers_that_it_fetched(tmp_path: Path) -> None:
    with stage_swarm(tmp_path) as swarm:
        swarm.start("0:3")
        async with swarm.client() as joined:
            alone, _ = await generate(joined, request(20, 3.0))
            newcomer = StageDaemon(
                tmp_path / "newcomer", "gpt", "1:3", swarm.lifeline, "--fetch", "--name", "late"
            )
            newcomer.start(swarm.addresses[0])
            swarm.stages.append(newcomer)
            swarm.addresses.append(newcomer.wait_ready())
            # A file for each of two layers and the head, the tied embedding, and the manifest.
            assert len(list((tmp_path / "newcomer" / FOLDER).glob("*/*"))) == 5
            await swarm.until_known(joined, 2)
            # The first stage of the swarm holds all layers. A third one has only the first.
            third = StageDaemon(tmp_path / "third", "gpt", "0:1", swarm.lifeline, "--fetch")
            third.start(*swarm.addresses)
            swarm.stages.append(third)
            third.wait_ready()
            await swarm.until_known(joined, 3)
            swarm.stages[0].kill()
            made, _ = await generate(joined, request(20, 3.0))
            assert made.tokens == alone.tokens
            assert set(made.peers) == {newcomer.peer, third.peer}
