"""What an account earned in the run that an observer watches, for the API."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from daemon.chain.client_setup import open_chain
from daemon.chain.home_runs import HomeRun
from daemon.chain.rewards import rewards_of
from daemon.config.settings import ChainConfig
from daemon.observer.api.query import BadQuery
from daemon.observer.api.resources import RewardsBody, Unavailable
from protocol.chain.errors import ChainError
from protocol.chain.keccak import checked_address
from protocol.errors import UserError
from protocol.run.manifest import SignedManifest
from protocol.status.status_record import NO_REWARDS

KEPT_S = 30.0
"""How long an answer is kept. A chain makes a block in seconds, and an epoch in hours."""

KEPT_ADDRESSES = 1024


class RewardsLookup:
    """Looks accounts up on the run's chain, one at a time, and keeps the answers for a while."""

    def __init__(self, settings: ChainConfig, signed: SignedManifest, home: Path) -> None:
        self._settings, self._home = settings, home
        self._run = HomeRun(run=signed.run, manifest=signed.open())
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, RewardsBody]] = OrderedDict()

    def __call__(self, address: str, as_of: float) -> RewardsBody:
        """Return what an account earned. Blocks for seconds at most.

        Raises:
            BadQuery: for text that is no address.
            Unavailable: where the chain does not answer, or no endpoint of it is known.
        """
        try:
            account = checked_address(address)
        except (UserError, ValueError) as error:
            raise BadQuery(f"This is no address: {error}") from None
        if self._run.manifest.settlement is UNSET:
            return RewardsBody(as_of=as_of, address=account, pays=False, note=NO_REWARDS)
        with self._lock:
            kept = self._known.get(account)
            if kept is None or time.monotonic() - kept[0] > KEPT_S:
                kept = time.monotonic(), self._ask(account, as_of)
                self._known[account] = kept
                if len(self._known) > KEPT_ADDRESSES:
                    self._known.popitem(last=False)
        return replace(kept[1])

    def _ask(self, account: str, as_of: float) -> RewardsBody:
        notes: list[str] = []
        try:
            chain = open_chain(self._settings, self._run.manifest, self._home, None)
            found = rewards_of(chain, self._home, self._run, account, notes.append)
        except UserError as error:
            raise Unavailable(error.what, error.fix) from None
        except ChainError as error:
            raise Unavailable(f"The chain of this run does not answer: {error}") from None
        return RewardsBody(
            as_of=as_of,
            address=account,
            pays=True,
            earned=found.earned,
            claimable=found.claimable,
            claimed=found.claimed,
            pending=found.pending,
            pending_at_s=found.pending_at_s or None,
            note=". ".join([found.note, *notes] if found.note else notes),
        )
