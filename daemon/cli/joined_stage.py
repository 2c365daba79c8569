"""The settings of commands that use a model that others serve: `generate` and `api`."""

from __future__ import annotations

import os

import msgspec

from daemon.cli.invocation import Invocation
from daemon.config.loader import load_config
from daemon.config.settings import Config
from daemon.control.client import call
from daemon.home.layout import ensure_home
from daemon.node.run_choice import invitation_in
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError


def joined_config(invocation: Invocation, join: tuple[str, ...], example: str) -> Config:
    """Return settings that join the given addresses, else those that this home knows.

    The home knows the stage that runs on it, else the members of its last run. Its own node uses
    the configured ports, so a client listens on free ones. `example` is the command that an error
    names. Raises `UserError`: "JOIN" where no address is known.
    """
    flags: dict[str, str | tuple[str, ...]] = {"network.listen_port": "0", "network.bulk_port": "0"}
    if join:
        invitation = invitation_in(join)
        flags["network.join"] = join if invitation is None else invitation.addresses
    config, _ = load_config(invocation.home, invocation.config, flags, os.environ)
    if not config.network.join:
        addresses = _known_addresses(invocation, example)
        network = msgspec.structs.replace(config.network, join=addresses)
        config = msgspec.structs.replace(config, network=network)
    ensure_home(config.home)
    return config


def _known_addresses(invocation: Invocation, example: str) -> tuple[str, ...]:
    """Return the addresses of this home's stage, else of the members of its last run."""
    from daemon.home.recent_state import load_recent_state  # noqa: PLC0415
    from daemon.node.stage_report import StageReport  # noqa: PLC0415

    try:
        report = msgspec.json.decode(call(invocation.home, "stage"), type=StageReport)
        return report.addresses
    except UserError as error:
        missing = error
    known = load_recent_state(invocation.home)
    if known is not None and known.runs and known.runs[0].members:
        members, run = known.runs[0].members, known.runs[0].run[:SHOWN_DIGITS]
        invocation.say(
            f"No stage runs on this home. Asking the {len(members)} members of its last run {run}"
            " which model they serve."
        )
        return members
    raise UserError(
        "JOIN",
        "No stage to generate with.",
        why=f"--join is missing, and {missing.what[0].lower()}{missing.what[1:]}",
        fix=f"{example} --join MULTIADDR (a stage prints its address)",
        exit_code=2,
    )
