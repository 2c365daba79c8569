"""Opening the chain that a run names, from this node's settings: which profile, which endpoints,
whose wallet.
"""

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

OURS = "hypergpu"  # any chain with this project's contracts
PROFILES = ("none", OURS, "plumise")
STATE_FOLDER = "chain"
TURN_FILE = "turn"
CHAIN_EXIT_CODE = 6
# Its main network, for runs that pay nothing themselves and only beat there.
PLUMISE_CHAIN_ID = 41956


def check_profile(manifest: Manifest) -> None:
    """Raises `UserError("CHAIN")` for a run whose chain this version does not know."""
    if manifest.chain not in PROFILES:
        raise UserError(
            "CHAIN",
            f"The run wants the chain {manifest.chain!r}.",
            why=f"`chain` names a kind of chain, and this version knows: {', '.join(PROFILES)}; which chain it is stands under [settlement]",
            fix=f'write chain = "{OURS}" in the run\'s file and the [settlement] that hypergpud devnet prints, also for anvil; '
            "in a run of somebody else's, ask its owner which version of hypergpu it needs",
            exit_code=2,
        )


def open_chain(
    settings: ChainConfig, manifest: Manifest, home: Path, wallet: UnlockedWallet | None
) -> Chain:
    """The run's chain; without a wallet it can only be read.

    Asks nobody yet. Raises `UserError("CHAIN" | "RPC" | "SETTLEMENT")`.
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
            f"The run {manifest.name!r} does not say which chain it is settled on.",
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
    """From sending to knowing how it ended, for one process of this home at a time; blocks until it
    is our turn.

    The client's own file keeps two processes from taking one nonce, but how a transaction ended is
    told to whoever looks first: a command would never learn what became of its claim while the
    daemon beats with the same wallet (seen in the demo).
    """
    folder = home / STATE_FOLDER
    make_private_directory(folder)
    handle = os.open(folder / TURN_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
