"""`sample`: what a model of a run writes or predicts.

It only reads the home, whether a daemon runs there or not.
"""

from __future__ import annotations

import click
import msgspec

from daemon.cli.arguments import FiniteRange
from daemon.cli.invocation import global_options, invocation_of
from daemon.cli.model_options import model_config, model_options
from daemon.results.model_choice import ModelChoice

# The most that one request makes.
MAX_TOKENS, MAX_COUNT = 4096, 256


class SampleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `sample --json` prints."""

    run: str
    name: str
    round: int
    seed: int
    samples: tuple[str, ...]


@click.command()
@click.argument("run", required=False, metavar="[RUN]")
@click.option("--prompt", default="", metavar="TEXT", help="The text to continue.")
@click.option(
    "--tokens",
    type=click.IntRange(1, MAX_TOKENS),
    default=64,
    show_default=True,
    help="The most tokens of a text.",
)
@click.option(
    "--count",
    type=click.IntRange(1, MAX_COUNT),
    default=1,
    show_default=True,
    help="Number of texts, or of samples to predict.",
)
@click.option(
    "--temperature",
    type=FiniteRange(0, 100),
    default=0.8,
    show_default=True,
    help="0 always takes the likeliest token.",
)
@click.option(
    "--top-p",
    type=FiniteRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    help="Keep the likeliest tokens whose probabilities add up to this.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 63) - 1),
    default=0,
    show_default=True,
    help="The same seed gives the same text.",
)
@model_options
@global_options(hidden=True)
@click.pass_context
def sample(
    context: click.Context,
    run: str | None,
    prompt: str,
    tokens: int,
    count: int,
    temperature: float,
    top_p: float,
    seed: int,
    certificate: str | None,
    join: tuple[str, ...],
    device: str | None,
    allow_custom_task: bool,
) -> None:
    """Show what the newest model of a run writes or predicts.

    RUN is the beginning of a run's id. Default: the run that this home was in last. A language
    model continues the prompt. Other models predict held-out samples.
    """
    invocation = invocation_of(context)
    config = model_config(invocation, device, allow_custom_task)
    # These imports take a while; a wrong setting is reported before them.
    import trio  # noqa: PLC0415

    from daemon.results.opened_model import opened_model  # noqa: PLC0415
    from protocol.generation.sampler import SamplingRules  # noqa: PLC0415

    choice = ModelChoice(run=run, certificate=certificate, join=join)
    rules = SamplingRules(temperature=temperature, top_p=top_p, seed=seed)

    async def made() -> SampleResult:
        async with opened_model(config, choice, invocation.say) as opened:
            signed = opened.model.signed
            return SampleResult(
                run=signed.run.hex(),
                name=signed.open().name,
                round=opened.model.number,
                seed=seed,
                samples=await opened.trainer.sample(
                    opened.model.parameters, prompt=prompt, count=count, tokens=tokens, rules=rules
                ),
            )

    result = trio.run(made)
    if invocation.as_json:
        invocation.result(msgspec.json.encode(result).decode())
        return
    invocation.say(f"The model of {result.name} ({result.run[:12]}) at round {result.round}:")
    invocation.result("\n".join(result.samples))
