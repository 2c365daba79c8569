"""`devnet`: a local test chain with our contracts at the precompile addresses."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from daemon.cli.arguments import LIFELINE, PORT, FiniteRange
from daemon.cli.invocation import global_options, invocation_of
from protocol.errors import UserError

GENESIS_FILE = "genesis.json"
CHAIN_FILE = "chain.sqlite"
DIRECTORY = "devnet"
# All three in seconds.
BLOCK_TIME = FiniteRange(0, 86400)
EPOCH = click.IntRange(1, 1 << 32)
DELAY = click.IntRange(0, 1 << 32)


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address of the JSON-RPC server.",
)
@click.option(
    "--port",
    type=PORT,
    default=8545,
    show_default=True,
    metavar="PORT",
    help="Port of the JSON-RPC server; 0: a free port.",
)
@click.option(
    "--block-time",
    type=BLOCK_TIME,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between blocks; 0: a block for each transaction, at once.",
)
@click.option(
    "--epoch",
    type=EPOCH,
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="Length of a settlement epoch.",
)
@click.option(
    "--delay",
    type=DELAY,
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="How long a proposed root can be disputed.",
)
@click.option(
    "--owner",
    metavar="ADDRESS",
    help="Owner of the reward pool. Default: an account with a public key pair.",
)
@click.option(
    "--settler",
    multiple=True,
    metavar="ADDRESS",
    help="Account that proposes roots (repeat). Default: three accounts with public key pairs.",
)
@click.option(
    "--needed",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Settlers that must propose the same root. Default: a majority.",
)
@click.option(
    "--fund",
    multiple=True,
    metavar="ADDRESS",
    help="Give this account coins from the start (repeat).",
)
@click.option("--in-memory", is_flag=True, help="Write nothing to disk.")
@click.option(
    "--anvil",
    is_flag=True,
    help="Use Foundry's anvil from the same genesis; it writes nothing to disk.",
)
@click.option(
    "--genesis-only",
    is_flag=True,
    help="Print the genesis and exit: anvil --init FILE starts the same chain.",
)
@click.option("--lifeline", type=LIFELINE, hidden=True, help="End when this inherited pipe closes.")
@global_options(hidden=True)
@click.pass_context
def devnet(
    context: click.Context,
    host: str,
    port: int,
    block_time: float,
    epoch: int,
    delay: int,
    owner: str | None,
    settler: tuple[str, ...],
    needed: int | None,
    fund: tuple[str, ...],
    in_memory: bool,
    anvil: bool,
    genesis_only: bool,
    lifeline: int | None,
) -> int:
    """Run a local test chain (worthless coins, public keys)."""
    invocation = invocation_of(context)
    # The EVM and web3 take a second; a mistake in the options is reported without them.
    from contracts.devnet.genesis import genesis_of  # noqa: PLC0415

    in_memory = in_memory or anvil
    home = invocation.home / DIRECTORY
    kept = home / GENESIS_FILE
    if kept.is_file() and not (in_memory or genesis_only):
        genesis: dict[str, Any] = _kept_genesis(kept)
        invocation.say(
            f"Continuing the chain in {home}; options of the genesis are ignored."
            " Remove the folder to start another chain."
        )
    else:
        try:
            genesis = genesis_of(_settings(epoch, delay, owner, settler, needed, fund))
        except ValueError as error:
            raise UserError(
                "DEVNET",
                "No devnet can have these settings.",
                why=str(error),
                fix="hypergpud devnet --help lists the options",
                exit_code=2,
            ) from None
    if genesis_only:
        invocation.result(json.dumps(genesis, indent=1))
        return 0
    from daemon.cli.chain.devnet_server import (  # noqa: PLC0415
        ServeOptions,
        serve_anvil,
        serve_evm,
    )

    options = ServeOptions(host=host, port=port, block_s=block_time, lifeline=lifeline)
    if anvil:
        serve_anvil(invocation, genesis, options)
    else:
        if not in_memory and not kept.is_file():
            _keep_genesis(kept, genesis)
        serve_evm(invocation, genesis, None if in_memory else home / CHAIN_FILE, options)
    return 0


def _keep_genesis(kept: Path, genesis: dict[str, Any]) -> None:
    from daemon.disk.atomic import write_atomically  # noqa: PLC0415

    write_atomically(kept, [memoryview(json.dumps(genesis).encode())])


def _kept_genesis(kept: Path) -> dict[str, Any]:
    """Return the genesis of this home's chain.

    Raises `UserError("DEVNET")` where it is damaged, or has other contracts than ours.
    """
    from contracts.devnet.genesis import foreign_contracts  # noqa: PLC0415

    fix = f"remove {kept.parent} to start another chain"
    try:
        genesis: dict[str, Any] = json.loads(kept.read_bytes())
        foreign = foreign_contracts(genesis)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            "DEVNET", f"Cannot read the genesis {kept}.", why=str(error), fix=fix
        ) from None
    if foreign:
        raise UserError(
            "DEVNET",
            f"The chain in {kept.parent} has the contracts of another version of hypergpu.",
            why=f"different: {', '.join(foreign)}; a chain's contracts are fixed by its genesis",
            fix=fix,
        )
    return genesis


def _settings(
    epoch: int,
    delay: int,
    owner: str | None,
    settler: tuple[str, ...],
    needed: int | None,
    fund: tuple[str, ...],
) -> Any:
    from contracts.devnet.genesis import COIN, FAUCET, GenesisSettings, dev_account  # noqa: PLC0415
    from protocol.chain.keccak import checked_address  # noqa: PLC0415

    settlers = tuple(checked_address(each) for each in settler) or tuple(
        dev_account(f"settler {i}") for i in range(3)
    )
    pool_owner = checked_address(owner) if owner else dev_account("owner")
    funded = {dev_account(FAUCET): 10**9 * COIN}
    for account in (pool_owner, *settlers, *(checked_address(each) for each in fund)):
        funded[account] = 10_000 * COIN
    return GenesisSettings(
        owner=pool_owner,
        settlers=settlers,
        needed=needed or len(settlers) // 2 + 1,
        start_s=int(time.time()),
        epoch_s=epoch,
        delay_s=delay,
        funded=funded,
    )
