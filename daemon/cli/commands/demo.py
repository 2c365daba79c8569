"""`demo`: a whole swarm of real processes on this machine, for as long as one looks at it."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import PATH
from daemon.cli.invocation import global_options, invocation


@click.command()
@click.option(
    "--peers", type=click.IntRange(2, 64), default=4, show_default=True, help="How many daemons."
)
@click.option(
    "--rounds",
    type=click.IntRange(min=0),
    default=0,
    help="Stop after so many certified rounds; 0: at Ctrl-C.",
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
    help="Start a chain too: each registers, is paid for its certified samples, checks that and claims.",
)
@click.option(
    "--anvil",
    is_flag=True,
    help="With --chain: Foundry's anvil is that chain, not the embedded EVM.",
)
@global_options(hidden=True)
@click.pass_context
def demo(
    context: click.Context, peers: int, rounds: int, run_file: Path | None, chain: bool, anvil: bool
) -> int:
    """Start daemons and an observer on loopback, watch them train one model, and say how it went."""
    if anvil and not chain:
        raise click.UsageError("--anvil says which chain --chain starts.")
    from daemon.demo.supervisor import run_demo  # noqa: PLC0415  # rich and the run's manifest, for this command alone

    return run_demo(
        invocation(context), peers=peers, rounds=rounds, run_file=run_file, chain=chain, anvil=anvil
    )
