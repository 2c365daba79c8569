"""`simulate`: worlds of nodes that run the real code while everything goes wrong, and what came of
it.
"""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli.arguments import NEW_FILE, PATH
from daemon.cli.invocation import global_options, invocation

NETWORK = "network"
PROFILES = ("good", "average", "poor", "unstable", "regions")


@click.command()
@click.argument("name", required=False)
@click.option(
    "--fuzz",
    type=click.IntRange(min=1),
    metavar="N",
    help="Play N random schedules of all faults instead.",
)
@click.option(
    "--nodes",
    type=click.IntRange(2, 10_000),
    help="How many nodes. Default: what the scenario was made for.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Of the world; with --fuzz, of the first schedule.",
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
    help="Draw progress as an SVG file.",
)
@click.option(
    "--jobs", type=click.IntRange(1, 64), help="Processes. Default: one for each core, 8 at most."
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="regions",
    show_default=True,
    help="network: which links.",
)
@click.option(
    "--policy",
    metavar="POLICY",
    help="network: adaptive, or fixed:G. Default: adaptive beside all sizes.",
)
@click.option("--list", "listing", is_flag=True, help="Name the scenarios.")
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
    listing: bool,
) -> int:
    """Play scenarios in a simulated world and check every invariant.

    Ends with 0 when everything went as it must. A failing schedule is shrunk to the faults that it
    takes, and printed.

    `simulate network` plays the bytes of plans alone, on stated links, and compares sizes of
    groups.
    """
    if name == NETWORK and fuzz is None and schedule is None and not listing:
        from simulator.network import output as network  # noqa: PLC0415

        call = invocation(context)
        records = network.play(profile, nodes or network.NODES, policy, seed, call.say)
        call.result(network.told(records, call.as_json, picture))
        return 0
    from simulator.playback import output  # noqa: PLC0415  # the whole node: a second that only this command pays

    if listing:
        click.echo("\n".join(output.names()))
        return 0
    outcomes = output.outcomes_of(name, fuzz, schedule, nodes, seed, jobs)
    return output.tell(outcomes, as_json=invocation(context).as_json, save=save, picture=picture)
