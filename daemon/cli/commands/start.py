"""`start`: loads settings and key, locks the home, chooses the run, and runs the node."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import msgspec

from daemon.cli.arguments import LIFELINE, PATH, RUN
from daemon.cli.invocation import Invocation, global_options, invocation_of
from daemon.config.loader import load_config, write_default_config
from daemon.config.settings import Config
from daemon.home.layout import CONFIG_FILE, JOURNAL_FILE, LOG_FILE, WALLET_FILE, ensure_home
from daemon.home.lock import home_lock
from daemon.home.node_key import load_or_make_key
from daemon.node.run_choice import RunChoice, choose_run, enter_run, invitation_in, seal_run
from daemon.wallet.password import Password, find_password
from protocol.errors import UserError
from protocol.identity import Signer, short
from protocol.membership.invitation_token import Invitation
from protocol.run.manifest import SignedManifest

# Keys, checkpoints and logs are readable by the user of the node only.
PRIVATE = 0o077


@click.command()
@click.option(
    "--run",
    "run_file",
    type=RUN,
    metavar="FILE|ID",
    help="The run's manifest (TOML), or the id of a run that this home was in."
    " Default: the last run of this home, else the bundled one.",
)
@click.option(
    "--from",
    "weights",
    metavar="FILE|RUN@CERT",
    help="Begin the run of --run from these weights: a safetensors file, or a certificate's model"
    " of this home.",
)
@click.option(
    "--join",
    multiple=True,
    metavar="INVITATION|MULTIADDR",
    help="The line that the run's owner sent you, or the address of a node of the run, or"
    " /dnsaddr/NAME for addresses in DNS (repeat).",
)
@click.option("--name", metavar="TEXT", help="Name that others see.")
@click.option(
    "--port",
    metavar="PORT",
    help="TCP port to listen on; 0: the port of the last start, else a free one.",
)
@click.option("--no-page", is_flag=True, help="Serve no page of this node.")
@click.option(
    "--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N, or several: cuda:0,cuda:1."
)
@click.option(
    "--allow-custom-task",
    is_flag=True,
    help="Let this start run the local code that the run names as module:Class.",
)
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
    weights: str | None,
    join: tuple[str, ...],
    name: str | None,
    port: str | None,
    no_page: bool,
    device: str | None,
    allow_custom_task: bool,
    password_file: Path | None,
    lifeline: int | None,
) -> int:
    """Run a node in the foreground; the first start makes its key.

    Ctrl-C finishes the training step, writes a checkpoint and stops. A second Ctrl-C stops at once.
    """
    invocation = invocation_of(context)
    os.umask(PRIVATE)
    home = invocation.home
    ensure_home(home)
    with home_lock(home, invocation.say):
        if invocation.config is None and write_default_config(home):
            invocation.say(f"Wrote {home / CONFIG_FILE} with all settings at their defaults.")
        invitation = invitation_in(join)
        flags: dict[str, str | tuple[str, ...]] = (
            {"network.join": join} if join and invitation is None else {}
        )
        given = {"node.name": name, "network.listen_port": port, "worker.device": device}
        flags |= {key: value for key, value in given.items() if value is not None}
        if allow_custom_task:
            flags["worker.allow_custom_task"] = "true"
        if no_page:
            flags["page.enabled"] = "false"
        config, origins = load_config(home, invocation.config, flags, os.environ)
        signer, secret = load_or_make_key(home)
        if not config.node.name:
            config = msgspec.structs.replace(
                config, node=msgspec.structs.replace(config.node, name=f"node-{short(signer.peer)}")
            )
        chosen = choose_run(run_file, config.network.join, home, signer, invitation)
        if weights is not None:
            chosen = _from_weights(invocation, config, run_file, weights, chosen, signer)
        config = msgspec.structs.replace(
            config, network=msgspec.structs.replace(config.network, join=chosen.join)
        )
        for sentence in _defaults_used(config, origins):
            invocation.say(sentence)
        for sentence in chosen.assumed:
            invocation.say(sentence)
        if chosen.manifest is not None:
            enter_run(config, chosen.manifest, signer.peer, invitation)
        password = _password(home, chosen.manifest, password_file)
        return _run(
            invocation, config, chosen.manifest, signer, secret, lifeline, password, invitation
        )


def _from_weights(
    invocation: Invocation,
    config: Config,
    run_file: Path | None,
    weights: str,
    chosen: RunChoice,
    signer: Signer,
) -> RunChoice:
    """Return the run of the file, which begins from weights. Writes them into the home."""
    if run_file is None or chosen.manifest is None or not run_file.exists():
        raise UserError(
            "FROM",
            "--from begins a new run, and no run file was given.",
            why="--run FILE names the task, its options and the rules of the new run",
            fix=f"hypergpud start --run FILE --from {weights}",
            exit_code=2,
        )
    # These imports take a while; a mistake in the options is reported before them.
    import trio  # noqa: PLC0415

    from daemon.results.initial_weights import begin_from_weights  # noqa: PLC0415

    manifest = chosen.manifest.open()
    signed = trio.run(
        begin_from_weights,
        config,
        manifest,
        weights,
        lambda changed: seal_run(changed, signer),
        invocation.say,
    )
    return msgspec.structs.replace(chosen, manifest=signed)


def _defaults_used(config: Config, origins: dict[str, str]) -> list[str]:
    """Return a sentence for each default that was used, with the option that changes it."""
    # Half a second of imports; a mistake in the settings is reported before them.
    from daemon.home.recent_state import (  # noqa: PLC0415
        RECENT_STATE_FILE,
        last_port,
        load_recent_state,
    )

    said = [f"Home: {config.home} (change: --home)."]
    if load_recent_state(config.home) is None:
        said.append(
            f"Forgot the port and the peers of the last start: cannot read"
            f" {config.home / RECENT_STATE_FILE}. The file is replaced."
        )
    if origins["node.name"] == "default":
        said.append(f"Name: {config.node.name} (change: --name).")
    if origins["network.listen_port"] == "default":
        usual = last_port(config.home)
        said.append(
            f"Port: {usual}, as at the last start, unless another program uses it (change: --port)."
            if usual
            else "Port chosen automatically and reused next time (change: --port)."
        )
    if origins["worker.device"] == "default":
        said.append("Device: the GPU if there is one, else the CPU (change: --device).")
    return said


def _password(home: Path, manifest: SignedManifest | None, flag: Path | None) -> Password | None:
    """Return the wallet's password; None without a wallet, or in a run that does not pay.

    A terminal asks for it only when the run is known to pay.
    """
    if not (home / WALLET_FILE).exists() or (
        manifest is not None and manifest.open().chain == "none"
    ):
        return None
    # eth-account takes half a second, which only runs that pay need.
    from daemon.wallet.files import address_in_home  # noqa: PLC0415

    try:
        return find_password(flag, os.environ, address_in_home(home), may_ask=manifest is not None)
    except UserError as error:
        if error.code == "WALLET_LOCKED":
            # The node trains unpaid, and its status says why.
            return None
        raise


def _run(
    invocation: Invocation,
    config: Config,
    manifest: SignedManifest | None,
    signer: Signer,
    secret: bytes,
    lifeline: int | None,
    password: Password | None,
    invitation: Invitation | None,
) -> int:
    # The network's libraries take a second; a wrong setting is reported before them. libp2p sets up
    # logging at import, so ours is set up afterwards.
    from daemon.journal import Journal  # noqa: PLC0415
    from daemon.logs import set_up_logging  # noqa: PLC0415
    from daemon.node.app import run_node  # noqa: PLC0415

    set_up_logging(verbose=invocation.verbose, quiet=invocation.quiet, file=config.home / LOG_FILE)
    journal = Journal(config.home / JOURNAL_FILE, time.time)
    return run_node(
        config,
        manifest,
        signer,
        secret,
        journal,
        lifeline,
        invocation.say,
        password,
        invitation,
    )
