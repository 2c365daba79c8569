"""Opening the chain that a run names, from this node's settings: which profile, which endpoints, whose wallet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET

from daemon.config import ChainConfig
from protocol.errors import UserError
from protocol.manifest import Manifest
from protocol.ports import Chain

if TYPE_CHECKING:
    from daemon.wallet.keystore import UnlockedWallet

PROFILES = ("none", "hypergpu", "plumise")
STATE_FOLDER = "chain"
CHAIN_EXIT_CODE = 6


def check_profile(manifest: Manifest) -> None:
    """Raises `UserError("CHAIN")` for a run whose chain this version does not know."""
    if manifest.chain not in PROFILES:
        raise UserError(
            "CHAIN",
            f"The run wants the chain {manifest.chain!r}.",
            why=f"this version has: {', '.join(PROFILES)}",
            fix="upgrade hypergpu",
            exit_code=2,
        )


def open_chain(settings: ChainConfig, manifest: Manifest, home: Path, wallet: UnlockedWallet | None) -> Chain:
    """The run's chain; without a wallet it can only be read. Connects when it is first asked. Raises `UserError("CHAIN" | "RPC")`."""
    from contracts.client import connect  # noqa: PLC0415  # web3 takes a second to import, which only those pay who use a chain

    check_profile(manifest)
    if not settings.rpc:
        raise UserError(
            "RPC",
            f"No endpoint of the chain {manifest.chain!r} is known.",
            why="chain.rpc is empty",
            fix=f'write rpc = ["https://..."] under [chain] in {home / "config.toml"}',
            exit_code=2,
        )
    settlement = None if manifest.settlement is UNSET else manifest.settlement
    return connect(settings, manifest, settlement, home / STATE_FOLDER, wallet)
