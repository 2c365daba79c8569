"""`observe`: the status page of a swarm, from a light node without GPU or wallet."""

from __future__ import annotations

import os

import click
import msgspec

from daemon.cli.arguments import LIFELINE
from daemon.cli.invocation import Invocation, global_options, invocation
from daemon.config.loader import load_config
from daemon.control.client import call
from daemon.home.layout import ensure_home
from protocol.errors import UserError
from protocol.status import Status


@click.command()
@click.option(
    "--join",
    multiple=True,
    metavar="MULTIADDR",
    help="A node of the swarm. Default: the daemon on this home, where one runs.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    help="Address of the page. Anything but loopback shows it to others.",
)
@click.option("--port", metavar="PORT", help="Port of the page; 0: the system picks one.")
@click.option("--lifeline", type=LIFELINE, hidden=True, help="End when this inherited pipe closes.")
@global_options(hidden=True)
@click.pass_context
def observe(
    context: click.Context,
    join: tuple[str, ...],
    host: str | None,
    port: str | None,
    lifeline: int | None,
) -> int:
    """Watch a swarm and serve its status page."""
    talk = invocation(context)
    given = {"observer.host": host, "observer.port": port}
    # A home's fixed ports are its daemon's; an observer beside it takes any, since nobody needs to
    # find it.
    flags: dict[str, str | tuple[str, ...]] = {"network.listen_port": "0", "network.bulk_port": "0"}
    flags |= {key: value for key, value in given.items() if value is not None}
    if join:
        flags["network.join"] = join
    config, _ = load_config(talk.home, talk.config, flags, os.environ)
    joins = config.network.join or _local_daemon(talk)
    ensure_home(config.home)
    from daemon.logs import set_up_logging  # noqa: PLC0415
    from daemon.node.app import run_observer  # noqa: PLC0415  # a second of imports, after the settings are known to be right

    set_up_logging(verbose=talk.verbose, quiet=talk.quiet)
    return run_observer(config, joins, lifeline, talk.say)


def _local_daemon(talk: Invocation) -> tuple[str, ...]:
    try:
        addresses = msgspec.json.decode(call(talk.home, "status"), type=Status).you.addresses
    except UserError as error:
        raise UserError(
            "NO_SWARM",
            "There is no swarm to observe.",
            why=f"no --join was given, and on this machine: {error.what[0].lower()}{error.what[1:]}",
            fix="hypergpud observe --join MULTIADDR   (a node prints its own when it is ready)",
            exit_code=2,
        ) from None
    talk.say(f"Assumed: the swarm of the daemon on {talk.home} (--join)")
    return addresses
