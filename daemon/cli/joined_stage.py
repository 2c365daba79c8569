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
from protocol.errors import UserError


def joined_config(invocation: Invocation, join: tuple[str, ...], example: str) -> Config:
    """Return settings that join the given addresses, else the stage that runs on this home.

    The stage of this home uses the configured ports, so a client listens on free ones. `example` is
    the command that an error names. Raises `UserError`: "JOIN" where no stage is known.
    """
    flags: dict[str, str | tuple[str, ...]] = {"network.listen_port": "0", "network.bulk_port": "0"}
    if join:
        invitation = invitation_in(join)
        flags["network.join"] = join if invitation is None else invitation.addresses
    config, _ = load_config(invocation.home, invocation.config, flags, os.environ)
    if not config.network.join:
        addresses = _local_stage(invocation, example)
        network = msgspec.structs.replace(config.network, join=addresses)
        config = msgspec.structs.replace(config, network=network)
    ensure_home(config.home)
    return config


def _local_stage(invocation: Invocation, example: str) -> tuple[str, ...]:
    """Return the addresses of the stage that runs on this home."""
    from daemon.node.stage_node import StageReport  # noqa: PLC0415

    try:
        report = msgspec.json.decode(call(invocation.home, "stage"), type=StageReport)
    except UserError as error:
        raise UserError(
            "JOIN",
            "No stage to generate with.",
            why=f"--join is missing, and {error.what[0].lower()}{error.what[1:]}",
            fix=f"{example} --join MULTIADDR (a stage prints its address)",
            exit_code=2,
        ) from None
    return report.addresses
