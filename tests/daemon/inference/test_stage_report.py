"""A node that trains and serves tells commands of its home where its stage is."""

from __future__ import annotations

import msgspec
import pytest
import trio

from daemon.journal import Journal
from daemon.node.control_commands import NodeControl
from daemon.node.shutdown import Shutdown
from daemon.node.stage_report import StageReport
from protocol.errors import UserError
from simulator.inference.stage_world import MODEL, generate, inference_world, request


async def test_stage_beside_training_answers_its_home() -> None:
    async with inference_world() as world:
        node = world.add(0, 6)
        control = NodeControl(Journal(None, lambda: 0.0), Shutdown())
        ask = control.handlers()["stage"]
        with pytest.raises(UserError, match="not begun"):
            await ask()
        async with world.client() as client:
            control.serves([node.service], 10.0, node.network)  # type: ignore[arg-type]
            async with client.generation(request(tokens=5)) as generation:
                await generation.next_token()
                report = msgspec.json.decode(await ask(), type=StageReport)
                assert (report.model, report.name) == (MODEL.hex(), "fake")
                assert (report.generations, report.addresses) == (1, node.network.addresses)
            await generate(client, request(tokens=5))
        await trio.sleep(2)
        assert msgspec.json.decode(await ask(), type=StageReport).generations == 0


async def test_node_without_a_stage_says_which_setting_serves_one() -> None:
    async with inference_world() as world:
        node = world.add(0, 6)
        control = NodeControl(Journal(None, lambda: 0.0), Shutdown())

        class Training:
            """A service of another kind."""

        control.serves([Training()], 10.0, node.network)  # type: ignore[arg-type, list-item]
        with pytest.raises(UserError, match="serves no model") as refused:
            await control.handlers()["stage"]()
        assert "inference.model" in refused.value.fix
