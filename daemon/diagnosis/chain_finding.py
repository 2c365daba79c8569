"""Whether the endpoints of the run's chain answer, and for the right chain."""

from __future__ import annotations

from pathlib import Path

from msgspec import UNSET

from daemon.chain.client_setup import open_chain
from daemon.config.settings import Config
from daemon.diagnosis.finding import Finding
from daemon.diagnosis.home_findings import of_error
from protocol.chain.errors import ChainError
from protocol.errors import UserError
from protocol.run.manifest import SignedManifest


def chain_finding(home: Path, config: Config, signed: SignedManifest | None) -> Finding | None:
    """Ask the chain for its head; None where the run pays nothing. May take seconds."""
    manifest = signed.open() if signed is not None else None
    if manifest is None or manifest.settlement is UNSET:
        return None
    try:
        chain = open_chain(config.chain, manifest, home, None)
        head = chain.head()
    except UserError as error:
        return of_error("chain", error)
    except ChainError as error:
        fix = "correct rpc under [chain] in config.toml; training goes on unpaid meanwhile"
        return Finding(what="chain", verdict="warning", evidence=str(error), fix=fix)
    return Finding(what="chain", verdict="ok", evidence=f"block {head.number} of {chain.profile}")
