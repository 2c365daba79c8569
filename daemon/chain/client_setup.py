"""Opens the chain that a run names, with this node's endpoints and wallet."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET

from daemon.config.settings import ChainConfig
from daemon.disk.atomic import make_private_directory
from daemon.home.layout import CONFIG_FILE
from protocol.chain.port import Chain
from protocol.errors import UserError
from protocol.run.manifest import Manifest

if TYPE_CHECKING:
    from daemon.wallet.keystore import UnlockedWallet

# Any chain with this project's contracts.
OURS = "hypergpu"
PROFILES = ("none", OURS, "plumise")
STATE_FOLDER = "chain"
TURN_FILE = "turn"
CHAIN_EXIT_CODE = 6
# Plumise's main network, for runs that only send heartbeats there and pay nothing themselves.
PLUMISE_CHAIN_ID = 41956


def check_profile(manifest: Manifest) -> None:
    """Raise `UserError("CHAIN")` if this version does not know the run's chain."""
    if manifest.chain not in PROFILES:
        names = f"{', '.join(PROFILES[:-1])} or {PROFILES[-1]}"
        raise UserError(
            "CHAIN",
            f"Unknown chain {manifest.chain!r}; use {names}.",
            why="`chain` names a kind of chain, and [settlement] names the chain itself",
            fix=f'for a devnet or anvil, write chain = "{OURS}" and the [settlement] that '
            "hypergpud devnet prints into the run's file; for the run of another person, ask its "
            "owner which version of hypergpu it needs",
            exit_code=2,
        )


def open_chain(
    settings: ChainConfig, manifest: Manifest, home: Path, wallet: UnlockedWallet | None
) -> Chain:
    """Open the run's chain, without asking any node. Without a wallet the chain is read-only.

    Raises `UserError("CHAIN" | "RPC" | "SETTLEMENT")`.
    """
    # Late, since web3 takes a second to import, and only nodes with a chain need it.
    from contracts.chain_settings import ChainSettings  # noqa: PLC0415
    from contracts.client import connect  # noqa: PLC0415
    from contracts.signers import signer_of  # noqa: PLC0415

    check_profile(manifest)
    if not settings.rpc:
        raise UserError(
            "RPC",
            f"No endpoint of the chain {manifest.chain!r} is known.",
            why="chain.rpc is empty",
            fix=f'write rpc = ["https://..."] under [chain] in {home / CONFIG_FILE}',
            exit_code=2,
        )
    if manifest.settlement is UNSET and manifest.chain != "plumise":
        raise UserError(
            "SETTLEMENT",
            f"The run {manifest.name!r} does not name the chain that it is settled on.",
            exit_code=2,
        )
    return connect(
        ChainSettings(
            profile=manifest.chain,
            chain_id=PLUMISE_CHAIN_ID
            if manifest.settlement is UNSET
            else manifest.settlement.chain_id,
            urls=settings.rpc,
            confirmations=settings.confirmations,
        ),
        None if wallet is None else signer_of(wallet.private_key()),
        home / STATE_FOLDER,
    )


@contextmanager
def account_turn(home: Path) -> Iterator[None]:
    """Exclude other processes of this home from sending a transaction until its end is known.

    Blocks until the lock is free. The client's own file keeps two processes from using one nonce.
    But the process that looks first learns how a transaction ended. Without this lock, a command
    would not learn the end of its claim while the daemon sends heartbeats with the same wallet.
    """
    folder = home / STATE_FOLDER
    make_private_directory(folder)
    handle = os.open(folder / TURN_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
