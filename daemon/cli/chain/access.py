"""What `rewards`, `settle` and `session` share: which run, which chain, whose account, and how a
chain's failure becomes an exit code.
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
from protocol.chain.port import Chain, ChainError, ChainRefused, ChainUnreachable, WrongChain
from protocol.errors import UserError


class RunAccess(msgspec.Struct, frozen=True, kw_only=True):
    """The settings and the run of one command."""

    config: Config
    run: HomeRun


def access(talk: Invocation, named_run: str | None) -> RunAccess:
    """Raises `UserError`."""
    config, _ = load_config(talk.home, talk.config, {}, os.environ)
    return RunAccess(config=config, run=settled_run(talk.home, named_run))


def unlocked(talk: Invocation, password_file: Path | None) -> UnlockedWallet:
    """The home's wallet, unlocked. Raises `UserError` (exit code 5)."""
    address = files.address_in_home(talk.home)
    return files.unlock(talk.home, find_password(password_file, os.environ, address))


@contextmanager
def reading(talk: Invocation, given: RunAccess) -> Iterator[Chain]:
    """The chain, to look at."""
    with _as_user_errors():
        yield open_chain(given.config.chain, given.run.manifest, talk.home, None)


@contextmanager
def signing(talk: Invocation, given: RunAccess, wallet: UnlockedWallet) -> Iterator[Chain]:
    """The chain, to send to, while the daemon of this home waits with its heartbeat."""
    with _as_user_errors(), account_turn(talk.home):
        yield open_chain(given.config.chain, given.run.manifest, talk.home, wallet)


@contextmanager
def _as_user_errors() -> Iterator[None]:
    try:
        yield
    except ChainUnreachable as error:
        raise UserError(
            "CHAIN_DOWN",
            "The chain does not answer.",
            why=str(error),
            fix="try again later; training goes on without it, and nothing earned is lost",
            exit_code=CHAIN_EXIT_CODE,
        ) from None
    except WrongChain as error:
        raise UserError(
            "WRONG_CHAIN",
            "That is not the chain of this run.",
            why=str(error),
            fix="check rpc under [chain]",
            exit_code=CHAIN_EXIT_CODE,
        ) from None
    except ChainRefused as error:
        raise UserError("REFUSED", "The chain refused.", why=error.reason) from None
    except ChainError as error:
        raise UserError(
            "CHAIN", "The chain did not settle it.", why=str(error), exit_code=CHAIN_EXIT_CODE
        ) from None
