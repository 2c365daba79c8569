"""`api`: serves OpenAI's protocol on this machine, with the stages of a swarm."""

from __future__ import annotations

from functools import partial

import click

from daemon.cli.arguments import LIFELINE, PORT
from daemon.cli.invocation import global_options, invocation_of
from daemon.cli.joined_stage import joined_config

# Below the ports that systems give out for outgoing connections, as the ports of a node.
DEFAULT_PORT = 27800
MOST_OPEN = 10_000


@click.command()
@click.option(
    "--join",
    multiple=True,
    metavar="MULTIADDR",
    help="Address of a stage (repeat). Default: the stage that runs on this home, else the"
    " members of its last run.",
)
@click.option("--model", default="", metavar="NAME|ID", help="Where several models are served.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. The connection is not encrypted.",
)
@click.option(
    "--port", type=PORT, default=DEFAULT_PORT, show_default=True, help="Port; 0: a free one."
)
@click.option(
    "--max-open",
    type=click.IntRange(1, MOST_OPEN),
    default=50,
    show_default=True,
    help="The most answers at once; more get status 429.",
)
@click.option(
    "--audit",
    is_flag=True,
    help="Let other holders repeat every stage's work at the end of each answer.",
)
@click.option("--lifeline", type=LIFELINE, hidden=True, help="End when this inherited pipe closes.")
@global_options(hidden=True)
@click.pass_context
def api(
    context: click.Context,
    join: tuple[str, ...],
    model: str,
    host: str,
    port: int,
    max_open: int,
    audit: bool,
    lifeline: int | None,
) -> int:
    """Answer programs that speak OpenAI's protocol, over HTTP.

    Clients send the key in HOME/api.key as a bearer token. A stage that dies is replaced by another
    one with the same layers, and the answer stays the same.
    """
    invocation = invocation_of(context)
    config = joined_config(invocation, join, "hypergpud api")
    # These imports take a second; a wrong setting is reported before them.
    from daemon.logs import set_up_logging  # noqa: PLC0415
    from daemon.node import api_node  # noqa: PLC0415
    from daemon.node.app import run_trio  # noqa: PLC0415

    set_up_logging(verbose=invocation.verbose, quiet=invocation.quiet)
    settings = api_node.ApiSettings(
        model=model, host=host, port=port, max_open=max_open, audit=audit
    )
    return run_trio(partial(api_node.run, config, settings, lifeline, invocation.say))
