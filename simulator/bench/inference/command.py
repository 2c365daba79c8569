"""`bench inference` and `bench stage-audits`: the cost of stages, and what their audits find."""

from __future__ import annotations

import click
import msgspec

from daemon.cli.arguments import FiniteRange
from daemon.cli.invocation import Invocation, global_options, invocation_of

INTERRUPTED = 130


@click.command()
@click.option(
    "--model",
    default="smollm2",
    show_default=True,
    metavar="MODEL",
    help="A model as for hypergpud serve.",
)
@click.option(
    "--stages", type=click.IntRange(2, 16), default=3, show_default=True, help="Number of stages."
)
@click.option(
    "--tokens",
    type=click.IntRange(8, 4096),
    default=40,
    show_default=True,
    help="Tokens of each answer.",
)
@click.option(
    "--answers",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="Answers of each kind.",
)
@click.option(
    "--rtt",
    type=FiniteRange(0.1, 1000.0),
    metavar="MS",
    help="Measure the stages over links with this round trip instead. Needs root.",
)
@global_options(hidden=True)
@click.pass_context
def inference(
    context: click.Context, model: str, stages: int, tokens: int, answers: int, rtt: float | None
) -> int:
    """Measure the time per token of a model in one stage and in several.

    All stages are real processes on loopback. Fails where the texts differ, or where several stages
    take more than 1.3 times the time of one. With --rtt, the same stages on loopback and far from
    each other are compared; a hop may add 1.1 round trips.
    """
    invocation = invocation_of(context)
    if rtt is not None:
        return _far(invocation, model, stages, tokens, answers, rtt)
    from simulator.bench.inference.token_times import measure_token_times  # noqa: PLC0415

    found = measure_token_times(
        invocation, model=model, stages=stages, tokens=tokens, answers=answers
    )
    if found is None:
        return INTERRUPTED
    if invocation.as_json:
        invocation.result(msgspec.json.encode(found).decode())
    else:
        same = "the same text" if found.same_text else "NOT the same text"
        invocation.result(
            f"{found.model}, median time between two tokens: {found.one_stage_ms:.1f} ms in one"
            f" stage, {found.stages_ms:.1f} ms in {found.stages} ({found.ratio:.2f} times), {same}"
        )
    return 0 if found.good else 1


def _far(
    invocation: Invocation, model: str, stages: int, tokens: int, answers: int, rtt_ms: float
) -> int:
    from simulator.bench.inference.far_stages import measure_far_tokens  # noqa: PLC0415

    found = measure_far_tokens(
        invocation,
        model=model,
        stages=stages,
        tokens=tokens,
        answers=answers,
        rtt_s=rtt_ms / 1000,
    )
    if invocation.as_json:
        invocation.result(msgspec.json.encode(found).decode())
    else:
        same = "the same tokens" if found.same_tokens else "NOT the same tokens"
        invocation.result(
            f"{found.model} in {found.stages} stages, median time between two tokens:"
            f" {found.near_ms:.1f} ms on loopback, {found.far_ms:.1f} ms at {found.rtt_ms:g} ms"
            f" round trip; each hop adds {found.rtts_per_hop:.2f} round trips, {same}"
        )
    return 0 if found.good else 1


@click.command("stage-audits")
@click.option(
    "--model",
    default="smollm2",
    show_default=True,
    metavar="MODEL",
    help="A model of hypergpud model fetch, a folder or a file with weights.",
)
@click.option(
    "--spans",
    type=click.IntRange(1, 10_000_000),
    default=1000,
    show_default=True,
    help="Honest spans to audit.",
)
@click.option("--seed", type=click.IntRange(0, 1 << 31), default=1, show_default=True)
@global_options(hidden=True)
@click.pass_context
def stage_audits(context: click.Context, model: str, spans: int, seed: int) -> int:
    """Audit spans of honest stages, and of stages that cheat, with a model's real weights.

    Fails where an honest stage is named wrong, or a cheat is not named within 20 audited spans.
    """
    invocation = invocation_of(context)
    from simulator.bench.inference.stage_audits import bench_stage_audits, table  # noqa: PLC0415

    found = bench_stage_audits(model, spans, seed, invocation.say)
    invocation.result(msgspec.json.encode(found).decode() if invocation.as_json else table(found))
    return 0 if all(one.good for one in found) else 1
