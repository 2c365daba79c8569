"""Serves a local test chain until a signal or the end of a lifeline."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec

from contracts.devnet.anvil import anvil_serving, found_anvil
from contracts.devnet.server import serving
from daemon.cli.chain.devnet_terms import pasteable, terms_of
from daemon.cli.invocation import Invocation
from protocol.chain.errors import ChainError
from protocol.errors import UserError

_ADDRESS_FIX = "name an address of this machine: hypergpud devnet --host 127.0.0.1"


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to serve, and when to stop: `lifeline` is a pipe whose end stops the server."""

    host: str
    port: int
    block_s: float
    lifeline: int | None


def serve_evm(
    invocation: Invocation, genesis: dict[str, Any], kept: Path | None, options: ServeOptions
) -> None:
    """Serve the embedded EVM. `kept` is the chain's file; None keeps nothing.

    Raises `UserError`.
    """
    try:
        with serving(
            genesis,
            kept,
            host=options.host,
            port=options.port,
            block_s=options.block_s,
            now=time.time,
        ) as (url, chain):
            end = "is lost" if kept is None else f"is kept in {kept}"
            _announce(invocation, "Devnet", url, chain.chain_id, end)
            _wait(options.lifeline)
    except (OSError, UnicodeError) as error:
        raise _cannot_serve("The devnet", options, error) from None
    except (ValueError, sqlite3.DatabaseError) as error:
        raise UserError(
            "DEVNET",
            f"Cannot continue the chain in {kept}.",
            why=str(error),
            fix=f"remove {kept}",
        ) from None


def serve_anvil(invocation: Invocation, genesis: dict[str, Any], options: ServeOptions) -> None:
    """Serve Foundry's anvil from the same genesis; it keeps nothing. Raises `UserError`."""
    program = found_anvil()
    if program is None:
        raise UserError(
            "ANVIL_MISSING",
            "anvil is not on this machine's PATH.",
            fix="install Foundry (getfoundry.sh) or npm's @foundry-rs/anvil,"
            " or leave out --anvil to use the embedded EVM",
        )
    try:
        with anvil_serving(
            program, genesis, host=options.host, port=options.port, block_s=options.block_s
        ) as url:
            _announce(invocation, "anvil as devnet", url, genesis["config"]["chainId"], "is lost")
            _wait(options.lifeline)
    except (OSError, UnicodeError) as error:
        raise _cannot_serve("anvil", options, error) from None


def _cannot_serve(who: str, options: ServeOptions, error: OSError | UnicodeError) -> UserError:
    """`UserError("DEVNET_PORT")` with what to type, by whether port or address is refused.

    A `UnicodeError` means that the host cannot be a name at all, as in "a..b".
    """
    fixes = {
        errno.EADDRINUSE: "stop the program that uses this port, or: hypergpud devnet --port 0",
        errno.EACCES: "ports below 1024 belong to root: hypergpud devnet --port 0",
        errno.EADDRNOTAVAIL: _ADDRESS_FIX,
    }
    if isinstance(error, UnicodeError | socket.gaierror):
        why = f"this machine cannot resolve {options.host!r} to an IPv4 address"
        fix = _ADDRESS_FIX
    else:
        why, fix = error.strerror or str(error), fixes.get(error.errno or 0, "")
    what = f"{who} cannot serve on {options.host}:{options.port}."
    return UserError("DEVNET_PORT", what, why=why, fix=fix)


def _announce(invocation: Invocation, who: str, url: str, chain_id: int, end: str) -> None:
    """Print the chain's address and the settings of a run that uses the chain.

    `end` says what becomes of the chain's contents.
    """
    try:
        terms = terms_of(url, chain_id)
    except ChainError as error:
        raise UserError(
            "DEVNET", f"The devnet at {url} gave a wrong answer.", why=str(error)
        ) from None
    if invocation.as_json:
        invocation.result(msgspec.json.encode(terms).decode())
    else:
        invocation.result(
            f"{who} {chain_id} answers at {url}, block {terms.block}\n\n{pasteable(terms)}\n"
        )
    invocation.say(
        f"Its coins are worthless and its keys are public. Ctrl-C stops it, and its state {end}."
    )


def _wait(lifeline: int | None) -> None:
    """Wait until SIGINT, SIGTERM, or the other end of the lifeline closes."""
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    for number in (signal.SIGINT, signal.SIGTERM):
        # The handler does nothing: `select` below reads the wake-up pipe.
        signal.signal(number, lambda *_: None)
    watched = [wakeup_read] if lifeline is None else [wakeup_read, lifeline]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if wakeup_read in ready or not os.read(watched[-1], 64):
            return
