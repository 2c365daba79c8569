"""`devnet`: the chain alone, on this machine: an EVM with our contracts at the precompile
addresses, behind JSON-RPC.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from daemon.cli.arguments import LIFELINE, PORT, FiniteRange
from daemon.cli.invocation import global_options, invocation
from protocol.chain.port import ChainError
from protocol.errors import UserError

GENESIS_FILE = "genesis.json"
CHAIN_FILE = "chain.sqlite"
DIRECTORY = "devnet"
_ADDRESS_FIX = "name an address of this machine: hypergpud devnet --host 127.0.0.1"
# seconds.
BLOCK_TIME, EPOCH, DELAY = (
    FiniteRange(0, 86400),
    click.IntRange(1, 1 << 32),
    click.IntRange(0, 1 << 32),
)


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address of the JSON-RPC.",
)
@click.option(
    "--port",
    type=PORT,
    default=8545,
    show_default=True,
    metavar="PORT",
    help="Port of the JSON-RPC; 0: the system picks one.",
)
@click.option(
    "--block-time",
    type=BLOCK_TIME,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="0: a block for each transaction, at once.",
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
    help="Owner of the reward pool. Default: a key that everybody knows.",
)
@click.option(
    "--settler",
    multiple=True,
    metavar="ADDRESS",
    help="Who proposes roots (repeat). Default: three keys that everybody knows.",
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
@click.option("--in-memory", is_flag=True, help="Keep nothing.")
@click.option(
    "--anvil",
    is_flag=True,
    help="Foundry's anvil in place of the embedded EVM, from the same genesis; it keeps nothing.",
)
@click.option(
    "--genesis-only",
    is_flag=True,
    help="Print the genesis and end: anvil --init FILE starts the same chain.",
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
    """Serve a chain of your own for tries: coins that are worth nothing, keys that everybody knows."""
    talk = invocation(context)
    in_memory = in_memory or anvil
    from contracts.devnet.genesis import genesis_of  # noqa: PLC0415  # a second of imports, after the options are known to be right

    home = talk.home / DIRECTORY
    kept = home / GENESIS_FILE
    if kept.is_file() and not (in_memory or genesis_only):
        genesis: dict[str, Any] = _kept_genesis(kept)
        talk.say(
            f"Going on with the chain in {home} (remove it to begin another one; options of the genesis are not read again)"
        )
    else:
        try:
            genesis = genesis_of(_settings(epoch, delay, owner, settler, needed, fund))
        except ValueError as error:
            raise UserError(
                "DEVNET", "There is no such devnet.", why=str(error), exit_code=2
            ) from None
    if genesis_only:
        talk.result(json.dumps(genesis, indent=1))
        return 0
    if anvil:
        return _serve_anvil(
            talk.say, talk.result, genesis, host, port, block_time, lifeline, talk.as_json
        )
    if not in_memory and not kept.is_file():
        from daemon.disk.atomic import write_atomically  # noqa: PLC0415

        write_atomically(kept, [memoryview(json.dumps(genesis).encode())])
    return _serve(
        talk.say,
        talk.result,
        genesis,
        None if in_memory else home / CHAIN_FILE,
        host,
        port,
        block_time,
        lifeline,
        talk.as_json,
    )


def _kept_genesis(kept: Path) -> dict[str, Any]:
    """The genesis that this home's chain began with.

    Raises `UserError("DEVNET")` where it is damaged, or has other contracts than ours.
    """
    from contracts.devnet.genesis import foreign_contracts  # noqa: PLC0415

    fix = f"remove {kept.parent} to begin another chain"
    try:
        genesis: dict[str, Any] = json.loads(kept.read_bytes())
        foreign = foreign_contracts(genesis)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            "DEVNET", f"The genesis {kept} cannot be read.", why=str(error), fix=fix
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
    the_owner = checked_address(owner) if owner else dev_account("owner")
    rich = {dev_account(FAUCET): 10**9 * COIN}
    for account in (the_owner, *settlers, *(checked_address(each) for each in fund)):
        rich[account] = 10_000 * COIN
    return GenesisSettings(
        owner=the_owner,
        settlers=settlers,
        needed=needed or len(settlers) // 2 + 1,
        start_s=int(time.time()),
        epoch_s=epoch,
        delay_s=delay,
        funded=rich,
    )


def _serve(
    say: Any,
    result: Any,
    genesis: dict[str, Any],
    kept: Path | None,
    host: str,
    port: int,
    block_s: float,
    lifeline: int | None,
    as_json: bool,
) -> int:
    from contracts.devnet.server import serving  # noqa: PLC0415

    try:
        with serving(genesis, kept, host=host, port=port, block_s=block_s, now=time.time) as (
            url,
            chain,
        ):
            end = "is gone" if kept is None else f"is kept in {kept}"
            _tell(say, result, "Devnet", url, chain.chain_id, end, as_json)
            _wait(lifeline)
    except (OSError, UnicodeError) as error:
        raise _unserved("The devnet", host, port, error) from None
    except (ValueError, sqlite3.DatabaseError) as error:
        raise UserError(
            "DEVNET",
            f"Cannot go on with the chain in {kept}.",
            why=str(error),
            fix=f"remove {kept}",
        ) from None
    return 0


def _serve_anvil(
    say: Any,
    result: Any,
    genesis: dict[str, Any],
    host: str,
    port: int,
    block_s: float,
    lifeline: int | None,
    as_json: bool,
) -> int:
    from contracts.devnet.anvil import anvil_serving, found_anvil  # noqa: PLC0415

    program = found_anvil()
    if program is None:
        raise UserError(
            "ANVIL_MISSING",
            "There is no anvil on this machine's PATH.",
            fix="install Foundry (getfoundry.sh), or npm's @foundry-rs/anvil; without --anvil the embedded EVM serves",
        )
    try:
        with anvil_serving(program, genesis, host=host, port=port, block_s=block_s) as url:
            _tell(
                say,
                result,
                "anvil as devnet",
                url,
                genesis["config"]["chainId"],
                "is gone",
                as_json,
            )
            _wait(lifeline)
    except (OSError, UnicodeError) as error:
        raise _unserved("anvil", host, port, error) from None
    return 0


def _unserved(who: str, host: str, port: int, error: OSError | UnicodeError) -> UserError:
    """`UserError("DEVNET_PORT")`: what to type depends on whether the port is refused or the
    address.

    A `UnicodeError` is about a host that no name may be, as "a..b".
    """
    fixes = {
        errno.EADDRINUSE: "stop the program that has this port, or: hypergpud devnet --port 0",
        errno.EACCES: "ports below 1024 belong to root: hypergpud devnet --port 0",
        errno.EADDRNOTAVAIL: _ADDRESS_FIX,
    }
    if isinstance(error, UnicodeError | socket.gaierror):
        why, fix = (
            f"{host!r} is no IPv4 address or name that this machine can resolve",
            _ADDRESS_FIX,
        )
    else:
        why, fix = error.strerror or str(error), fixes.get(error.errno or 0, "")
    return UserError("DEVNET_PORT", f"{who} cannot serve on {host}:{port}.", why=why, fix=fix)


def _tell(
    say: Any, result: Any, who: str, url: str, chain_id: int, end: str, as_json: bool
) -> None:
    """What answers where, and what a run needs to be settled there.

    `end` says what becomes of the chain.
    """
    from daemon.cli.chain.devnet_terms import pasteable, terms_of  # noqa: PLC0415  # web3 takes a second

    try:
        terms = terms_of(url, chain_id)
    except ChainError as error:
        raise UserError(
            "DEVNET", f"The devnet at {url} does not answer as it should.", why=str(error)
        ) from None
    if as_json:
        result(msgspec.json.encode(terms).decode())
    else:
        result(f"{who} {chain_id} answers at {url}, block {terms.block}\n\n{pasteable(terms)}\n")
    say(
        f"Its coins are worth nothing and its keys are known to everybody. Ctrl-C ends it, and what it holds {end}."
    )


def _wait(lifeline: int | None) -> None:
    """Until SIGINT, SIGTERM, or the other end of the lifeline closes."""
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the wake-up pipe is what is listened to
    watched = [heard] if lifeline is None else [heard, lifeline]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if heard in ready or not os.read(watched[-1], 64):
            return
