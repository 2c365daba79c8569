"""`demo`: a whole swarm of real processes on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import PATH
from daemon.cli.invocation import global_options, invocation_of


@click.command()
@click.option(
    "--peers", type=click.IntRange(2, 64), default=4, show_default=True, help="Number of daemons."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=0),
    default=0,
    help="Stop after this many certified rounds; 0: run until Ctrl-C.",
)
@click.option(
    "--run",
    "run_file",
    type=PATH,
    metavar="FILE",
    help="The run's manifest (TOML). Default: the bundled one.",
)
@click.option(
    "--chain",
    is_flag=True,
    help="Run a test chain too: each node registers, verifies its reward and claims it.",
)
@click.option(
    "--anvil",
    is_flag=True,
    help="With --chain: use Foundry's anvil instead of the embedded EVM.",
)
@click.option(
    "--alone/--no-alone",
    default=True,
    show_default=True,
    help="Train one more machine alone, to compare the swarm with.",
)
@click.option(
    "--inference",
    is_flag=True,
    help="Serve a model in stages instead, and kill a stage in the middle of an answer.",
)
@click.option(
    "--model",
    metavar="MODEL",
    help="With --inference: a model as for hypergpud serve. Default: one that the demo trains.",
)
@click.option(
    "--stages",
    type=click.IntRange(2, 16),
    default=2,
    show_default=True,
    help="With --inference: the number of stages; each has two holders.",
)
@click.option(
    "--prompt",
    default="import ",
    show_default=True,
    metavar="TEXT",
    help="With --inference: the text to continue.",
)
@click.option(
    "--tokens",
    type=click.IntRange(8, 4096),
    default=160,
    show_default=True,
    help="With --inference: the most tokens of the answer.",
)
@global_options(hidden=True)
@click.pass_context
def demo(
    context: click.Context,
    peers: int,
    rounds: int,
    run_file: Path | None,
    chain: bool,
    anvil: bool,
    alone: bool,
    inference: bool,
    model: str | None,
    stages: int,
    prompt: str,
    tokens: int,
) -> int:
    """Run a whole swarm on this machine and report the result.

    It starts daemons and an observer on loopback; they train one model together. With --inference,
    stages serve a model together, and the answer survives a stage that is killed.
    """
    if model is not None and not inference:
        raise click.UsageError("--model needs --inference.")
    if anvil and not chain:
        raise click.UsageError("--anvil needs --chain.")
    if inference:
        # numpy and the network's records take a while.
        from daemon.demo.inference.inference_demo import (  # noqa: PLC0415
            InferenceDemo,
            run_inference_demo,
        )

        wanted = InferenceDemo(model=model or "", stages=stages, prompt=prompt, tokens=tokens)
        return run_inference_demo(invocation_of(context), wanted)
    # rich and the run's manifest take a while; a mistake in the options does not wait for them.
    from daemon.demo.runner import run_demo  # noqa: PLC0415

    return run_demo(
        invocation_of(context),
        peers=peers,
        rounds=rounds,
        run_file=run_file,
        chain=chain,
        anvil=anvil,
        alone=alone,
    )
