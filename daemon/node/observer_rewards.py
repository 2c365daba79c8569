"""What an account earned in the run that an observer watches, for the API."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from pathlib import Path

from msgspec.structs import replace

from daemon.chain.client_setup import open_chain
from daemon.chain.home_runs import HomeRun
from daemon.chain.rewards import rewards_of
from daemon.chain.rewards_watch import money_on_chain
from daemon.config.settings import ChainConfig
from daemon.observer.api.query import BadQuery
from daemon.observer.api.resources import RewardsBody, Unavailable
from protocol.chain.errors import ChainError
from protocol.chain.keccak import checked_address
from protocol.chain.port import Chain
from protocol.errors import UserError
from protocol.journal import RewardsReport
from protocol.run.manifest import SignedManifest
from protocol.status.reward_records import NO_CHAIN
from protocol.status.status_record import NO_REWARDS

KEPT_S = 30.0
"""How long an answer is kept. A chain makes a block in seconds, and an epoch in hours."""

KEPT_ADDRESSES = 1024

MAX_WAITING = 3
"""Lookups at once, the running one included. Each waits in one of the threads, of which there are
five at least, that carry out the owner's orders and read the history, too."""


class RewardsLookup:
    """Looks accounts up on the run's chain, one at a time, and keeps the answers for a while."""

    def __init__(self, settings: ChainConfig, signed: SignedManifest, home: Path) -> None:
        self._settings, self._home = settings, home
        self._run = HomeRun(run=signed.run, manifest=signed.open())
        # Opened with the first question for the pool, which one task asks.
        self._pool_chain: Chain | None = None
        self._asking = threading.Lock()
        self._places = threading.Semaphore(MAX_WAITING)
        # Guards `_known`, and is held for moments.
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, RewardsBody]] = OrderedDict()

    def __call__(self, address: str, as_of: float) -> RewardsBody:
        """Return what an account earned. Blocks for seconds at most.

        Raises:
            BadQuery: for text that is no address.
            Unavailable: where the chain does not answer, or no endpoint of it is known, or others
                are being looked up.
        """
        try:
            account = checked_address(address)
        except (UserError, ValueError) as error:
            raise BadQuery(f"This is no address: {error}") from None
        manifest = self._run.manifest
        if manifest.chain == NO_CHAIN:
            return RewardsBody(as_of=as_of, address=account, pays=False, note=NO_REWARDS)
        return replace(self._kept(account) or self._looked_up(account, as_of))

    @property
    def asks_chain(self) -> bool:
        """Whether the run pays, and an endpoint of its chain is known here."""
        return self._run.manifest.chain != NO_CHAIN and bool(self._settings.rpc)

    def pool(self) -> RewardsReport:
        """Return what the run's chain holds in all. Blocks. Raises `ChainError` or `UserError`."""
        if self._pool_chain is None:
            manifest = self._run.manifest
            self._pool_chain = open_chain(self._settings, manifest, self._home, None)
        return money_on_chain(self._pool_chain, self._home, None)

    def _looked_up(self, account: str, as_of: float) -> RewardsBody:
        if not self._places.acquire(blocking=False):
            raise Unavailable(
                f"{MAX_WAITING} other accounts are being looked up.", "try again in a few seconds"
            )
        try:
            with self._asking:
                # Another request may have asked for the same account meanwhile.
                return self._kept(account) or self._keep(account, self._ask(account, as_of))
        finally:
            self._places.release()

    def _kept(self, account: str) -> RewardsBody | None:
        with self._lock:
            at, body = self._known.get(account, (0.0, None))
        return body if time.monotonic() - at <= KEPT_S else None

    def _keep(self, account: str, body: RewardsBody) -> RewardsBody:
        with self._lock:
            self._known[account] = time.monotonic(), body
            if len(self._known) > KEPT_ADDRESSES:
                self._known.popitem(last=False)
        return body

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
