"""`observe`: the status page of a swarm, from a node without GPU and wallet."""

from __future__ import annotations

import os

import click
import msgspec

from daemon.cli.arguments import LIFELINE
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.config.loader import load_config
from daemon.control.client import call
from daemon.home.layout import ensure_home
from daemon.node.run_choice import invitation_in
from protocol.errors import UserError
from protocol.status import Status


@click.command()
@click.option(
    "--join",
    multiple=True,
    metavar="MULTIADDR",
    help="Address of a node of the swarm (repeat), or an invitation, for the addresses in it; an"
    " observer uses none up. Default: the daemon on this home.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    help="Address of the page. Other machines see the page unless it is a loopback address.",
)
@click.option("--port", metavar="PORT", help="Port of the page; 0: a free port.")
@click.option("--own", "of_own_node", is_flag=True, help="The page of the node on this home.")
@click.option("--lifeline", type=LIFELINE, hidden=True, help="End when this inherited pipe closes.")
@global_options(hidden=True)
@click.pass_context
def observe(
    context: click.Context,
    join: tuple[str, ...],
    host: str | None,
    port: str | None,
    of_own_node: bool,
    lifeline: int | None,
) -> int:
    """Serve the status page of a swarm, without training.

    With --own, the page and the metrics are those of the node on this home, with its phases, its
    device and its disk. The node runs beside it: hypergpud start.
    """
    invocation = invocation_of(context)
    given = {"observer.host": host, "observer.port": port}
    # The daemon of this home uses the configured ports. An observer listens on free ones: no peer
    # needs to find it.
    flags: dict[str, str | tuple[str, ...]] = {"network.listen_port": "0", "network.bulk_port": "0"}
    flags |= {key: value for key, value in given.items() if value is not None}
    if join:
        invitation = invitation_in(join)
        flags["network.join"] = join if invitation is None else invitation.addresses
    if of_own_node and join:
        raise UserError(
            "USAGE",
            "--own shows the node on this home, which has its own peers.",
            fix="leave --join out, or leave --own out to observe from here",
            exit_code=2,
        )
    config, _ = load_config(invocation.home, invocation.config, flags, os.environ)
    if of_own_node:
        from daemon.node.app import run_own_page  # noqa: PLC0415

        return run_own_page(config, lifeline, invocation.say)
    joins = config.network.join or _local_daemon(invocation)
    ensure_home(config.home)
    # These imports take a second; a wrong setting is reported before them.
    from daemon.logs import set_up_logging  # noqa: PLC0415
    from daemon.node.app import run_observer  # noqa: PLC0415

    set_up_logging(verbose=invocation.verbose, quiet=invocation.quiet)
    return run_observer(config, joins, lifeline, invocation.say)


def _local_daemon(invocation: Invocation) -> tuple[str, ...]:
    try:
        addresses = msgspec.json.decode(call(invocation.home, "status"), type=Status).you.addresses
    except UserError as error:
        raise UserError(
            "NO_SWARM",
            "No swarm to observe.",
            why=f"--join is missing, and {error.what[0].lower()}{error.what[1:]}",
            fix="hypergpud observe --join MULTIADDR (a node prints its address when it is ready)",
            exit_code=2,
        ) from None
    invocation.say(f"Observing the swarm of the daemon on {invocation.home} (change: --join)")
    return addresses
