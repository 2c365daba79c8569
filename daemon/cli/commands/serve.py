"""`serve`: holds some layers of a model, and computes them for others."""

from __future__ import annotations

import os
from functools import partial

import click
import msgspec

from daemon.cli.arguments import LIFELINE
from daemon.cli.invocation import global_options, invocation_of
from daemon.config.loader import load_config
from daemon.home.layout import LOG_FILE, ensure_home
from daemon.home.lock import home_lock
from daemon.home.node_key import load_or_make_key
from daemon.node.run_choice import invitation_in
from protocol.errors import UserError
from protocol.identity import short

# Keys and logs are readable by the user of the node only.
PRIVATE = 0o077
# A cache of this many tokens has more bytes than any machine.
MAX_CACHE_TOKENS = 1 << 30


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--layers",
    default="",
    metavar="A:B|N",
    help="The layers from A up to, but not including, B; or N layers, those that the swarm covers"
    " worst. Default: all layers.",
)
@click.option(
    "--cache-tokens",
    type=click.IntRange(1, MAX_CACHE_TOKENS),
    metavar="N",
    help="The tokens that the caches of all generations hold together. Default: four times the"
    " model's context.",
)
@click.option(
    "--fetch",
    is_flag=True,
    help="Fetch the weights of these layers from the stages of --join, which serve MODEL.",
)
@click.option(
    "--join",
    multiple=True,
    metavar="MULTIADDR",
    help="Address of another stage of the model (repeat).",
)
@click.option("--name", metavar="TEXT", help="Name that others see.")
@click.option("--port", metavar="PORT", help="TCP port to listen on; 0: a free one.")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
@click.option("--lifeline", type=LIFELINE, hidden=True, help="End when this inherited pipe closes.")
@global_options(hidden=True)
@click.pass_context
def serve(
    context: click.Context,
    model: str,
    layers: str,
    cache_tokens: int | None,
    fetch: bool,
    join: tuple[str, ...],
    name: str | None,
    port: str | None,
    device: str | None,
    lifeline: int | None,
) -> int:
    """Serve layers of a model to others, as one stage of a pipeline.

    MODEL is a model of hypergpud model fetch, a folder or file with weights, or the beginning of a
    run's id of this home (RUN@N: the model of certificate N). With --fetch, MODEL is the name of a
    model that the joined stages serve, or the beginning of its id. Ctrl-C stops the stage;
    generations go on at other stages with the same layers.
    """
    invocation = invocation_of(context)
    os.umask(PRIVATE)
    ensure_home(invocation.home)
    if layers and not layers.isdecimal() and ":" not in layers:
        raise UserError(
            "LAYERS",
            f"{layers!r} is no range of layers.",
            why="--layers takes a range A:B, or a number of layers",
            fix=f"hypergpud serve {model} --layers 0:4",
            exit_code=2,
        )
    if fetch and not join:
        raise UserError(
            "JOIN",
            "--fetch needs a stage that has the model.",
            why="--join is missing",
            fix=f"hypergpud serve {model} --fetch --join MULTIADDR (a stage prints its address)",
            exit_code=2,
        )
    with home_lock(invocation.home, invocation.say):
        flags: dict[str, str | tuple[str, ...]] = {}
        if join:
            invitation = invitation_in(join)
            flags["network.join"] = join if invitation is None else invitation.addresses
        given = {"node.name": name, "network.listen_port": port, "worker.device": device}
        flags |= {key: value for key, value in given.items() if value is not None}
        config, _ = load_config(invocation.home, invocation.config, flags, os.environ)
        signer, secret = load_or_make_key(invocation.home)
        if not config.node.name:
            node = msgspec.structs.replace(config.node, name=f"stage-{short(signer.peer)}")
            config = msgspec.structs.replace(config, node=node)
        # These imports take seconds; a wrong setting is reported before them.
        from daemon.logs import set_up_logging  # noqa: PLC0415
        from daemon.node import stage_node  # noqa: PLC0415
        from daemon.node.app import run_trio  # noqa: PLC0415
        from daemon.node.stage_setup import StageChoice  # noqa: PLC0415

        set_up_logging(
            verbose=invocation.verbose, quiet=invocation.quiet, file=config.home / LOG_FILE
        )
        choice = StageChoice(
            model=model, layers=layers, cache_tokens=cache_tokens or 0, fetch=fetch
        )
        return run_trio(
            partial(stage_node.run, config, choice, signer, secret, lifeline, invocation.say)
        )
