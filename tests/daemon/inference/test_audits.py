"""Audits in virtual time: wrong stages are named, honest ones never are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from daemon.api.api_requests import TextRequest
from daemon.models.text_tokens import ByteTokenizer
from daemon.node.api_node import Generations
from daemon.node.model_client import JoinedModel
from daemon.services.inference.generation import GenerationOptions
from protocol.generation.sampler import SamplingRules
from protocol.inference.audit import StageAudited, difference, is_drawn, judge
from protocol.ports.stage import Activations
from simulator.fakes.stage import FAKE_MODEL, FakeStage
from simulator.inference.stage_world import (
    MODEL,
    InferenceWorld,
    inference_world,
    request,
)

ALWAYS = GenerationOptions(audit_share=1.0)


def skips_a_layer(stage: FakeStage) -> None:
    stage._weights[3] = 0


def coarse_weights(stage: FakeStage) -> None:
    """Round the weights to steps of a 127th of the largest one, as int8 does."""
    step = np.abs(stage._weights).max() / 127
    stage._weights = (np.round(stage._weights / step) * step).astype(np.float32)


async def audits(
    world: InferenceWorld, count: int, options: GenerationOptions = ALWAYS
) -> list[StageAudited]:
    """The audits of so many answers of one client."""
    found: list[StageAudited] = []
    async with world.client() as client:
        for number in range(count):
            wanted = request(tokens=6, prompt=tuple(bytes([number, 7, 9])))
            async with client.generation(wanted, options) as generation:
                while await generation.next_token() is not None:
                    pass
                found += await generation.audit()
    return found


@pytest.mark.parametrize("wire", ["float32", "float16"])
async def test_honest_stages_pass_every_audit(wire: str) -> None:
    async with inference_world() as world:
        for first in (0, 2, 4):
            for _ in range(2):
                world.add(first, first + 2)
        options = GenerationOptions(audit_share=1.0, wire=wire)  # type: ignore[arg-type]
        found = await audits(world, 5, options)
        assert len(found) == 15
        assert {one.verdict for one in found} == {"agrees"}
        assert not any(node.stage.open_generations for node in world.nodes)


@pytest.mark.parametrize("cheat", [skips_a_layer, coarse_weights])
async def test_wrong_stage_is_named_and_used_no_more(cheat: Callable[[FakeStage], None]) -> None:
    async with inference_world() as world:
        world.add(0, 2)
        world.add(0, 2)
        # The fastest stage, so that the client uses it first.
        liar = world.add(2, 6, layer_s=0.0)
        others = [world.add(2, 6, layer_s=0.01) for _ in range(2)]
        cheat(liar.stage)
        found = await audits(world, 4)
        wrong = [one for one in found if one.wrong]
        assert [one.wrong for one in wrong] == [liar.peer], "once, and it is not used again"
        assert wrong[0].verdict == "stage_wrong"
        assert {one.peer for one in found if one.layers.first == 2} <= {
            liar.peer,
            *(node.peer for node in others),
        }


async def test_wrong_auditor_does_not_convict_an_honest_stage() -> None:
    async with inference_world() as world:
        world.add(0, 6)
        liar = world.add(0, 6, layer_s=0.001)
        world.add(0, 6, layer_s=0.01)
        skips_a_layer(liar.stage)
        found = await audits(world, 6)
        assert {one.wrong for one in found} <= {"", liar.peer}


async def test_difference_of_two_holders_stays_undecided() -> None:
    async with inference_world() as world:
        world.add(0, 6)
        other = world.add(0, 6)
        skips_a_layer(other.stage)
        found = await audits(world, 2)
        assert {one.verdict for one in found} == {"disputed"}
        assert not any(one.wrong for one in found)


async def test_single_holder_stays_unaudited() -> None:
    async with inference_world() as world:
        world.add(0, 6)
        assert [one.verdict for one in await audits(world, 1)] == ["unaudited"]


def test_judge_names_the_odd_one() -> None:
    honest = np.ones((3, 4), np.float32)
    wrong: Activations = honest * np.float32(1.01)
    assert judge(honest, honest, None, "float32")[1] == "agrees"
    assert judge(wrong, honest, None, "float32")[1] == "disputed"
    assert judge(wrong, honest, honest, "float32")[1] == "stage_wrong"
    assert judge(honest, wrong, honest, "float32")[1] == "auditor_wrong"
    assert judge(honest, wrong, honest * np.float32(0.9), "float32")[1] == "disputed"
    assert difference(honest, honest[:2]) == float("inf")


def test_one_answer_in_ten_is_drawn() -> None:
    source = np.random.default_rng(0)
    drawn = sum(is_drawn(source.bytes(32), 0.1) for _ in range(10_000))
    assert 850 < drawn < 1150
    assert is_drawn(b"\xff" * 32, 1.0)
    assert not is_drawn(bytes(32), 0.0)


@pytest.mark.parametrize("audit", [True, False])
async def test_api_audits_every_answer_where_it_is_asked_to(audit: bool) -> None:
    lines: list[str] = []
    async with inference_world() as world:
        liar = world.add(0, 6)
        for _ in range(2):
            world.add(0, 6, layer_s=0.01)
        skips_a_layer(liar.stage)
        async with world.client() as client:
            joined = JoinedModel(
                model=MODEL,
                manifest=FAKE_MODEL,
                tokenizer=ByteTokenizer(),
                tokenizer_file=b"",
                client=client,
                network=world.swarm.network(b"unused" + bytes(26)),
            )
            wanted = TextRequest(
                prompt=(1, 2, 3),
                max_tokens=6,
                rules=SamplingRules(),
                stops=(),
                is_chat=False,
                is_stream=False,
                include_usage=False,
            )
            async with Generations(joined, lines.append, audit=audit).begin(wanted) as generation:
                while await generation.next_token() is not None:
                    pass
        assert not any(node.stage.open_generations for node in world.nodes)
    assert [line for line in lines if "finds" in line and "wrong" in line] == lines
    assert len(lines) == (1 if audit else 0)
