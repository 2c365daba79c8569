"""`start`: settings, key, lock and run; then the node itself, in the foreground."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import msgspec

from daemon.cli.arguments import LIFELINE, PATH, RUN
from daemon.cli.invocation import Invocation, global_options, invocation
from daemon.config.loader import load_config, write_default_config
from daemon.config.settings import Config
from daemon.home.layout import CONFIG_FILE, JOURNAL_FILE, LOG_FILE, WALLET_FILE, ensure_home
from daemon.home.lock import home_lock
from daemon.home.node_key import load_or_make_key
from daemon.node.run_choice import begin_run, choose_run
from daemon.wallet.password import Password, find_password
from protocol.errors import UserError
from protocol.identity import Signer, short
from protocol.run.manifest import SignedManifest

# Keys, checkpoints, logs: nothing of a node is other people's to read, unless its user says so.
PRIVATE = 0o077


@click.command()
@click.option(
    "--run",
    "run_file",
    type=RUN,
    metavar="FILE|ID",
    help="The run's manifest (TOML), or the id of a run that this home was in. Default: the last of those, else the bundled one.",
)
@click.option(
    "--join",
    multiple=True,
    metavar="MULTIADDR",
    help="A node that is in the swarm already; may be given several times.",
)
@click.option("--name", metavar="TEXT", help="How others see this node.")
@click.option(
    "--port",
    metavar="PORT",
    help="TCP port to listen on; 0: that of the last start, else the system picks one.",
)
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--password-file",
    type=PATH,
    metavar="PATH",
    help="File with the wallet's password, for runs that pay (also: HYPERGPU_PASSWORD_FILE).",
)
@click.option("--lifeline", type=LIFELINE, hidden=True, help="End when this inherited pipe closes.")
@global_options(hidden=True)
@click.pass_context
def start(
    context: click.Context,
    run_file: Path | None,
    join: tuple[str, ...],
    name: str | None,
    port: str | None,
    device: str | None,
    password_file: Path | None,
    lifeline: int | None,
) -> int:
    """Run a node in the foreground; its key and config appear on first use.

    Ctrl-C finishes the step, writes a checkpoint and leaves; twice leaves now.
    """
    talk = invocation(context)
    os.umask(PRIVATE)
    home = talk.home
    ensure_home(home)
    with home_lock(home, talk.say):
        if talk.config is None and write_default_config(home):
            talk.say(f"Wrote the settings, all at their defaults: {home / CONFIG_FILE}")
        flags: dict[str, str | tuple[str, ...]] = {"network.join": join} if join else {}
        given = {"node.name": name, "network.listen_port": port, "worker.device": device}
        flags |= {key: value for key, value in given.items() if value is not None}
        config, origins = load_config(home, talk.config, flags, os.environ)
        signer, secret = load_or_make_key(home)
        if not config.node.name:
            config = msgspec.structs.replace(
                config, node=msgspec.structs.replace(config.node, name=f"node-{short(signer.peer)}")
            )
        chosen = choose_run(run_file, config.network.join, home, signer)
        config = msgspec.structs.replace(
            config, network=msgspec.structs.replace(config.network, join=chosen.join)
        )
        for sentence in (*_assumed(config, origins), *chosen.assumed):
            talk.say(f"Assumed: {sentence}")
        if chosen.manifest is not None:
            begin_run(config, chosen.manifest)
        password = _password(home, chosen.manifest, password_file)
        return _run(talk, config, chosen.manifest, signer, secret, lifeline, password)


def _assumed(config: Config, origins: dict[str, str]) -> list[str]:
    """What was decided for want of settings, each with what changes it."""
    from daemon.home.recent_state import RECENT_STATE_FILE, last_port, load_recent_state  # noqa: PLC0415  # half a second that a mistake in the settings does not pay

    said = [f"home {config.home} (--home)"]
    if load_recent_state(config.home) is None:
        said.append(
            f"no port and no members from before: {config.home / RECENT_STATE_FILE} cannot be read, and is written anew"
        )
    if origins["node.name"] == "default":
        said.append(f"name {config.node.name} (--name)")
    if origins["network.listen_port"] == "default":
        usual = last_port(config.home)
        said.append(
            f"port {usual} on {config.network.listen_host}, as before, where it is still free (--port)"
            if usual
            else f"a free port on {config.network.listen_host}, the same at the next start (--port)"
        )
    if origins["worker.device"] == "default":
        said.append("the GPU where there is one, else the CPU (--device)")
    return said


def _password(home: Path, manifest: SignedManifest | None, flag: Path | None) -> Password | None:
    """The wallet's password where there is a wallet and a use for it.

    At a terminal it is asked for only when the run is known to pay.
    """
    if not (home / WALLET_FILE).exists() or (
        manifest is not None and manifest.open().chain == "none"
    ):
        return None
    from daemon.wallet.files import address_in_home  # noqa: PLC0415  # eth-account, for runs that pay

    try:
        return find_password(flag, os.environ, address_in_home(home), may_ask=manifest is not None)
    except UserError as error:
        if error.code == "WALLET_LOCKED":
            # It trains unpaid, and its status says why.
            return None
        raise


def _run(
    talk: Invocation,
    config: Config,
    manifest: SignedManifest | None,
    signer: Signer,
    secret: bytes,
    lifeline: int | None,
    password: Password | None,
) -> int:
    # Imported here: a wrong setting is reported at once, not after the second that the network's
    # libraries take.
    from daemon.journal import Journal  # noqa: PLC0415
    from daemon.logs import set_up_logging  # noqa: PLC0415  # and set up after libp2p, which sets up its own at import
    from daemon.node.app import run_node  # noqa: PLC0415

    set_up_logging(verbose=talk.verbose, quiet=talk.quiet, file=config.home / LOG_FILE)
    journal = Journal(config.home / JOURNAL_FILE, time.time)
    return run_node(config, manifest, signer, secret, journal, lifeline, talk.say, password)
