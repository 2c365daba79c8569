"""`hypergpud simulate`: plays swarms that run the node's real code while things go wrong."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import NEW_FILE, PATH
from daemon.cli.invocation import global_options, invocation_of
from simulator.playback.figure import check_matplotlib

NETWORK = "network"
PROFILES = ("good", "average", "poor", "unstable", "regions")


@click.command()
@click.argument("name", required=False)
@click.option(
    "--fuzz",
    type=click.IntRange(min=1),
    metavar="N",
    help="Play N random fault schedules instead.",
)
@click.option(
    "--nodes",
    type=click.IntRange(2, 10_000),
    help="Number of nodes. Default: the scenario's own number.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Seed of the world; with --fuzz, of the first schedule.",
)
@click.option(
    "--schedule", type=PATH, metavar="FILE", help="Play the story in FILE, as --save writes it."
)
@click.option(
    "--save",
    type=NEW_FILE,
    metavar="FILE",
    help="Write the story (of the first failure, if any) to FILE.",
)
@click.option(
    "--plot",
    "picture",
    type=NEW_FILE,
    metavar="FILE",
    help="Plot the progress to FILE (.svg, .png or .pdf).",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="Number of processes. Default: one for each core, 8 at most.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="regions",
    show_default=True,
    help="For `simulate network`: the links.",
)
@click.option(
    "--policy",
    metavar="POLICY",
    help="For `simulate network`: adaptive, or fixed:G. Default: adaptive and all fixed sizes.",
)
@click.option(
    "--inference",
    is_flag=True,
    help="Play stories of serving: NAME, all of them, or --fuzz N answers with random faults.",
)
@click.option("--list", "listing", is_flag=True, help="List the scenarios.")
@global_options(hidden=True)
@click.pass_context
def simulate(
    context: click.Context,
    name: str | None,
    fuzz: int | None,
    nodes: int | None,
    seed: int,
    schedule: Path | None,
    save: Path | None,
    picture: Path | None,
    jobs: int | None,
    profile: str,
    policy: str | None,
    inference: bool,
    listing: bool,
) -> int:
    """Play scenarios in a simulated world and check every invariant.

    Exits with 0 when every run passed. A failing schedule is shrunk to the faults that it needs,
    and printed.

    `simulate network` plays only the bytes of plans, on stated links, and compares group sizes.
    """
    if inference:
        from simulator.inference import output as serving  # noqa: PLC0415

        if listing:
            click.echo("\n".join(serving.names()))
            return 0
        for option, given in (("--schedule", schedule), ("--save", save), ("--plot", picture)):
            if given is not None:
                raise click.UsageError(f"{option} does not go with --inference.")
        return serving.play(invocation_of(context), name, fuzz, seed)
    if picture is not None:
        check_matplotlib()
    if name == NETWORK and fuzz is None and schedule is None and not listing:
        from simulator.network import output as network  # noqa: PLC0415

        call = invocation_of(context)
        records = network.play(profile, nodes or network.NODES, policy, seed, call.say)
        call.result(network.render(records, call.as_json, picture))
        return 0
    from simulator.playback import output  # noqa: PLC0415

    if listing:
        click.echo("\n".join(output.names()))
        return 0
    outcomes = output.outcomes_of(name, fuzz, schedule, nodes, seed, jobs)
    return output.print_outcomes(
        outcomes, as_json=invocation_of(context).as_json, save=save, picture=picture
    )
