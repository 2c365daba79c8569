"""Gets the states of certificates from members while other work goes on, one at a time.

A node that missed a few rounds fetches their means and replays them (`catch_up.py`). It downloads
the whole state where that is smaller, where a merge or another branch lies between, or where nobody
has the means any more. A state that is outdated when it has arrived is followed by the means since.

A download has its own vectors. The spare buffers belong to rounds and merges, which may write them
at any time; `Anchor.receive` moves a complete state there. A download that advances is never
replaced for a newer certificate of the same branch: on a slow link no state would ever be complete.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import trio

from daemon.services.training.native.state.catch_up import CatchUp
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from daemon.swarm.messenger import Refuse
from daemon.swarm.multi_peer_download import download_from
from daemon.swarm.state_download import KnownState, StateDownload
from protocol.averaging.outer_step import state_leaves
from protocol.averaging.replay import is_merge
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.result_keepers import keepers
from protocol.certificates.tip import Tip
from protocol.contribution.offer import is_finite
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import CaughtUp, JournalEvent
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.round.events import Event, StateBytesReceived, StateReceived
from protocol.rules.versions import RULES_4

# The time between events about a download that advances. A beacon names a state that is about to
# arrive, so that a leader waits for this node. With 1 s between events and leaders that wait for
# 1 s, the beacon came after the plan in each round, and the node stayed one round behind.
REPORT_EVERY_S = 0.25
# A download counts as advancing for this long after verified bytes: longer than a chunk takes at
# 250 kbit/s.
ADVANCING_S = 10.0

# The number of complete states kept, each of two vectors of the model. A node that cannot merge
# with another branch downloads the state of each head of that branch. The round machine uses one of
# the newest.
ARRIVED_KEPT = 3

Arrived = StateDownload | CatchUp
"""A state on its way, or complete: downloaded, or replayed onto the anchor."""


class Downloads:
    """One node's downloads of states.

    A complete state is kept until it is used, or until it no longer descends from the node's tip.
    """

    def __init__(
        self,
        *,
        network: Network,
        lineage: Lineage,
        members: Members,
        state_store: StateStore,
        offload: Offload,
        emit: Callable[[Event], None],
        record: Callable[[JournalEvent], None],
        refuse: Refuse,
    ) -> None:
        self._network = network
        self._lineage = lineage
        self._members = members
        self._state_store = state_store
        self._manifest = state_store.manifest
        self._offload, self._emit, self._record, self._refuse = offload, emit, record, refuse
        self._current: Arrived | None = None
        self._arrived: dict[Digest, Arrived] = {}
        self._scope = trio.CancelScope()
        self._reported_at = 0.0

    @property
    def underway(self) -> Digest | None:
        """The certificate whose state is being downloaded, while the download advances.

        A download that brought nothing yet gives way to a newer certificate. Members may not hold
        the state of the first certificate that a joiner hears of.
        """
        current = self._current
        return (
            current.tip
            if current is not None
            and current.begun
            and trio.current_time() < current.advanced_at + ADVANCING_S
            else None
        )

    @property
    def arrived(self) -> frozenset[Digest]:
        """The certificates whose states are complete."""
        return frozenset(self._arrived)

    def eta_s(self, name: Digest) -> float:
        """Return the seconds until a state is complete, at the rate so far.

        The result is infinite where the state is not being downloaded.
        """
        if name in self._arrived:
            return 0.0
        current = self._current
        return current.eta_s() if current is not None and current.tip == name else math.inf

    async def fetch(self, entry: LineageEntry, *, ahead: bool = False, follows: bool = True) -> str:
        """Download a state in place of any other, then emit `StateReceived`.

        Args:
            entry: The certificate, and the tip that it makes.
            ahead: The node goes to this certificate, also where it leaves its branch for it.
            follows: The node goes to certificates that descend from its tip. It only looks at the
                state where this is False.

        Returns:
            Why the download failed. Empty where it succeeded, where it was underway already, and
            where another download replaced it.
        """
        name = entry.tip.hash
        # Decide now: strangers' certificates may replace this one in the lineage meanwhile.
        ours = follows and self._lineage.descends(entry.tip, self._state_store.tip)
        ahead = ahead or ours
        if name in self._arrived:
            self._report_arrived(entry.certificate, ahead)
            return ""
        if self._current is not None and self._current.tip == name:
            return ""
        before = self._current
        self._scope.cancel()
        began, self._reported_at = trio.current_time(), -REPORT_EVERY_S
        with trio.CancelScope() as self._scope:
            path = self._path_to_replay(entry)
            store = self._state_store
            missing = sum(store.results.size_bytes(certificate) for certificate in path)
            small = missing < 8 * store.anchor.parameters
            arrived, failure = await self._replay(entry, path) if path and small else (None, "")
            if arrived is None:
                arrived, failure = await self._download(entry, before)
            if arrived is None and path and not small:
                # After a power cut of all, no member has the state, and some have its results.
                arrived, failure = await self._replay(entry, path)
            if arrived is None:
                return f"no peer served the state of certificate {entry.tip.number}: {failure}"
            reached = arrived.reached or entry.certificate
            source = max(
                arrived.given, key=lambda peer: arrived.given[peer], default=self._state_store.me
            )
            self._record(
                CaughtUp(
                    number=reached.outcome.number,
                    source=source,
                    size_bytes=arrived.received_bytes,
                    seconds=trio.current_time() - began,
                    replayed=arrived.replayed,
                )
            )
            self._arrived[reached.hash] = arrived
            while len(self._arrived) > ARRIVED_KEPT:
                del self._arrived[next(iter(self._arrived))]
            self._report_arrived(reached, ahead)
        return ""

    async def _replay(
        self, entry: LineageEntry, path: list[OpenCertificate]
    ) -> tuple[Arrived | None, str]:
        """Get to a certificate by the means since the anchor.

        Returns:
            The state of the certificate, or of one on the way to it; None and why it failed.
        """
        catching_up = self._current = CatchUp(
            network=self._network,
            manifest=self._manifest,
            state_store=self._state_store,
            path=path,
            holders=self._mean_holders,
            offload=self._offload,
            refuse=self._refuse,
            on_bytes=lambda: self._advanced(entry),
        )
        failure = await catching_up.run()
        if self._current is catching_up:
            self._current = None
        return (None, failure) if catching_up.reached is None else (catching_up, "")

    def _path_to_replay(self, entry: LineageEntry) -> list[OpenCertificate]:
        """Return the certificates to replay; none where a merge or another branch lies between."""
        store = self._state_store
        if not self._lineage.descends(entry.tip, store.tip):
            return []
        path = self._lineage.path(store.tip, entry.tip)
        whole = bool(path) and path[0].outcome.parents == (store.tip.hash,)
        if not whole or any(is_merge(certificate) for certificate in path):
            return []
        return path

    async def _download(
        self, entry: LineageEntry, before: Arrived | None
    ) -> tuple[Arrived | None, str]:
        """Download the state of a certificate. Returns the state, or None and why it failed."""
        download = self._current = StateDownload(
            entry.tip.hash,
            entry.tip.state,
            self._state_store.anchor.parameters,
            lambda: self._advanced(entry),
            lambda: self._known(before),
        )
        failure = await download_from(
            self._network, download, lambda: self._holders(entry), self._refuse
        )
        failure = failure or await self._corruption(download) or await self._infinity(download)
        if self._current is download:
            self._current = None
        return (None, failure) if failure else (download, "")

    def _report_arrived(self, certificate: OpenCertificate, ahead: bool) -> None:
        self._emit(
            StateReceived(certificate=certificate, tip=self._state_store.tip.hash, ahead=ahead)
        )

    def _advanced(self, entry: LineageEntry) -> None:
        now = trio.current_time()
        if now >= self._reported_at + REPORT_EVERY_S:
            self._reported_at = now
            self._emit(StateBytesReceived(certificate=entry.tip.hash))

    async def _corruption(self, download: StateDownload) -> str:
        """Return how the complete state differs from its verified chunks; "" if it does not."""
        leaves = await self._offload(lambda: state_leaves(download.value, download.momentum))
        return "" if download.leaves == leaves else "its bytes changed in memory"

    async def _infinity(self, download: StateDownload) -> str:
        """Return why a complete state is none that votes of rules 4 may name; "" if it is one.

        Members whose steps are limited never compute such a state (`step_norm.py`). So its voters
        lied, and nobody could train from it.
        """
        if self._manifest.rules < RULES_4:
            return ""
        parts = (download.value, download.momentum)
        finite = await self._offload(lambda: all(is_finite(part) for part in parts))
        return "" if finite else "it has values that are not finite"

    def pop(self, name: Digest) -> Arrived | None:
        """Return a complete state and forget it. Its vectors then belong to the caller."""
        return self._arrived.pop(name, None)

    def get(self, name: Digest) -> Arrived | None:
        """Return a complete state to read from, and keep it."""
        return self._arrived.get(name)

    def moved(self) -> None:
        """Drop the states that are of no use at the node's new tip.

        Under rules 4, the states of other branches stay: a merge needs them.
        """
        tip = self._state_store.tip
        for name in [*self._arrived, *([self._current.tip] if self._current else [])]:
            known = self._lineage.tip(name)
            if known is None or name == tip.hash or self._is_useless(known, tip):
                self._arrived.pop(name, None)
                if self._current is not None and self._current.tip == name:
                    self._scope.cancel()
                    self._current = None

    def _is_useless(self, state: Tip, tip: Tip) -> bool:
        if self._manifest.rules < RULES_4:
            return not self._lineage.descends(state, tip)
        return self._lineage.descends(tip, state)

    def _holders(self, entry: LineageEntry) -> list[PeerId]:
        """Return the peers that may serve a state, connected ones first.

        They are the nodes at its certificate or a later one, and the certificate's voters.
        """
        current = self._members.holders_of(entry.tip.hash)
        head = self._lineage.preferred_descendant(entry.tip)
        later = self._lineage.path(entry.tip, head) if head is not None else []
        beyond = [
            peer for certificate in later for peer in self._members.holders_of(certificate.hash)
        ]
        voters = [voter for voter in entry.certificate.voters if voter != self._state_store.me]
        candidates = list(dict.fromkeys((*current, *beyond, *voters)))
        return sorted(candidates, key=lambda peer: not self._members.is_connected(peer))

    def _mean_holders(self, certificate: OpenCertificate) -> list[PeerId]:
        """Return the peers that may hold a certificate's mean, connected ones first.

        Every voter had it, and its keepers have it on disk.
        """
        plan, outcome = certificate.plan, certificate.outcome
        candidates = dict.fromkeys(
            (
                *self._members.holders_of(certificate.hash),
                *keepers(outcome, plan, certificate.inclusion),
                *certificate.voters,
                *plan.members,
            )
        )
        candidates.pop(self._state_store.me, None)
        return sorted(candidates, key=lambda peer: not self._members.is_connected(peer))

    def _known(self, before: Arrived | None) -> Iterator[KnownState]:
        """Yield the states that may share chunks with a download: the anchor, the last download."""
        anchor = self._state_store.anchor
        own = anchor.leaves.get(self._state_store.tip.hash)
        if own is not None:
            yield KnownState(own, anchor.value, anchor.momentum)
        partial = before.known() if isinstance(before, StateDownload) else None
        if partial is not None:
            yield partial
