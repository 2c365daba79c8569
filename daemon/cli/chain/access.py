"""The run, chain and wallet of one command about money.

It also turns each failure of a chain into a `UserError` with its exit code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from daemon.chain.client_setup import CHAIN_EXIT_CODE, account_turn, open_chain
from daemon.chain.home_runs import HomeRun, settled_run
from daemon.cli.invocation import Invocation
from daemon.config.loader import load_config
from daemon.config.settings import Config
from daemon.wallet import files
from daemon.wallet.keystore import UnlockedWallet
from daemon.wallet.password import find_password
from protocol.chain.errors import ChainError, ChainRefused, ChainUnreachable, WrongChain
from protocol.chain.port import Chain
from protocol.errors import UserError


class RunAccess(msgspec.Struct, frozen=True, kw_only=True):
    """The settings and the run of one command."""

    config: Config
    run: HomeRun


def run_access(invocation: Invocation, named_run: str | None) -> RunAccess:
    """Load the settings and find the run. Raises `UserError`."""
    config, _ = load_config(invocation.home, invocation.config, {}, os.environ)
    return RunAccess(config=config, run=settled_run(invocation.home, named_run))


def unlock_wallet(invocation: Invocation, password_file: Path | None) -> UnlockedWallet:
    """Unlock the home's wallet. Raises `UserError` (exit code 5)."""
    address = files.address_in_home(invocation.home)
    return files.unlock(invocation.home, find_password(password_file, os.environ, address))


@contextmanager
def open_for_reading(invocation: Invocation, access: RunAccess) -> Iterator[Chain]:
    """Open the chain without a wallet."""
    with _chain_errors():
        yield open_chain(access.config.chain, access.run.manifest, invocation.home, None)


@contextmanager
def open_for_signing(
    invocation: Invocation, access: RunAccess, wallet: UnlockedWallet
) -> Iterator[Chain]:
    """Open the chain with a wallet; the daemon of this home delays its heartbeat meanwhile."""
    with _chain_errors(), account_turn(invocation.home):
        yield open_chain(access.config.chain, access.run.manifest, invocation.home, wallet)


@contextmanager
def _chain_errors() -> Iterator[None]:
    try:
        yield
    except ChainUnreachable as error:
        raise UserError(
            "CHAIN_DOWN",
            "The chain does not answer.",
            why=str(error),
            fix="try again later; training continues without it, and nothing earned is lost",
            exit_code=CHAIN_EXIT_CODE,
        ) from None
    except WrongChain as error:
        raise UserError(
            "WRONG_CHAIN",
            "The node at rpc serves another chain than this run's.",
            why=str(error),
            fix="correct rpc under [chain] in config.toml",
            exit_code=CHAIN_EXIT_CODE,
        ) from None
    except ChainRefused as error:
        raise UserError("REFUSED", "The chain refused the transaction.", why=error.reason) from None
    except ChainError as error:
        raise UserError(
            "CHAIN",
            "The chain did not settle the transaction.",
            why=str(error),
            exit_code=CHAIN_EXIT_CODE,
        ) from None
