"""The one state that a node downloads, beside whatever else it does: training, rounds, answers to
others.

A download has vectors of its own. The spare buffers belong to rounds and merges, whose steps may
come at any time; a state is moved there when it is complete, in one act (`Anchor.receive`). A
download that advances is never given up for a newer certificate of the same branch: on a slow link
no state would ever be complete.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import trio

from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.lineage import Lineage, LineageEntry
from daemon.swarm.members import Members
from daemon.swarm.messenger import Refuse
from daemon.swarm.multi_peer_download import download_from
from daemon.swarm.state_download import KnownState, StateDownload
from protocol.averaging.outer_step import state_leaves
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import CaughtUp, JournalEvent
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.round.events import Event, StateBytesReceived, StateReceived

# Of a download that advances: the machine needs no more to know that it does.
TOLD_EVERY_S = 1.0
# After verified bytes a download counts as advancing: more than a chunk takes at 250 kbit/s.
ADVANCING_S = 10.0

# Complete states that wait. A node that cannot merge with another branch asks for the state of each
# head of it, and each is two vectors of the model. What the round machine was told of last is among
# the newest.
ARRIVED_KEPT = 3


class Downloads:
    """One node's.

    What is complete waits until it is taken, or until the node stands where it leads nowhere.
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
        self._offload, self._emit, self._record, self._refuse = offload, emit, record, refuse
        self._current: StateDownload | None = None
        self._arrived: dict[Digest, StateDownload] = {}
        self._scope = trio.CancelScope()
        self._told_at = 0.0

    @property
    def underway(self) -> Digest | None:
        """The certificate whose state is being downloaded, while that advances."""
        current = self._current
        return (
            current.tip
            if current is not None and trio.current_time() < current.advanced_at + ADVANCING_S
            else None
        )

    @property
    def arrived(self) -> frozenset[Digest]:
        """The certificates whose states are here, complete."""
        return frozenset(self._arrived)

    def eta_s(self, name: Digest) -> float:
        """Until the state of this certificate is here, at the pace so far; infinite where it is not
        coming.
        """
        if name in self._arrived:
            return 0.0
        current = self._current
        return current.eta_s() if current is not None and current.tip == name else math.inf

    async def fetch(self, made: LineageEntry) -> str:
        """Download a state, in place of any other, then say that it is here.

        Returns why it came to nothing.

        Nothing where it is under way already, or where another takes its place.
        """
        name = made.tip.hash
        # Asked now: strangers' certificates may push this one out of the lineage while its state
        # comes.
        ahead = self._lineage.descends(made.tip, self._state_store.tip)
        if name in self._arrived:
            self._tell_arrived(made, ahead)
            return ""
        if self._current is not None and self._current.tip == name:
            return ""
        before = self._current
        self._scope.cancel()
        download = self._current = StateDownload(
            name, made.tip.state, self._state_store.anchor.parameters, lambda: self._advanced(made)
        )
        began, self._told_at = trio.current_time(), -TOLD_EVERY_S
        with trio.CancelScope() as self._scope:
            said = await download_from(
                self._network,
                download,
                lambda: self._holders(made),
                lambda: self._known(before),
                self._refuse,
            )
            said = said or await self._wrong(download)
            if self._current is download:
                self._current = None
            if said:
                return f"nobody gave the anchor of certificate {made.tip.number}: {said}"
            source = max(
                download.given, key=lambda peer: download.given[peer], default=self._state_store.me
            )
            seconds = trio.current_time() - began
            self._record(
                CaughtUp(
                    number=made.tip.number,
                    source=source,
                    size_bytes=download.received_bytes,
                    seconds=seconds,
                )
            )
            self._arrived[name] = download
            while len(self._arrived) > ARRIVED_KEPT:
                del self._arrived[next(iter(self._arrived))]
            self._tell_arrived(made, ahead)
        return ""

    def _tell_arrived(self, made: LineageEntry, ahead: bool) -> None:
        self._emit(
            StateReceived(certificate=made.certificate, tip=self._state_store.tip.hash, ahead=ahead)
        )

    def _advanced(self, made: LineageEntry) -> None:
        now = trio.current_time()
        if now >= self._told_at + TOLD_EVERY_S:
            self._told_at = now
            self._emit(StateBytesReceived(certificate=made.tip.hash))

    async def _wrong(self, download: StateDownload) -> str:
        """Whether the whole is what its parts were, in words; nothing where it is."""
        leaves = await self._offload(lambda: state_leaves(download.value, download.momentum))
        return "" if download.leaves == leaves else "its bytes changed in memory"

    def pop(self, name: Digest) -> StateDownload | None:
        """A complete state, once. Its vectors belong to whoever takes it."""
        return self._arrived.pop(name, None)

    def get(self, name: Digest) -> StateDownload | None:
        """A complete state, to be read. It stays here."""
        return self._arrived.get(name)

    def moved(self) -> None:
        """The node stands at another certificate: let go what does not lead on from there."""
        tip = self._state_store.tip
        for name in [*self._arrived, *([self._current.tip] if self._current else [])]:
            made = self._lineage.tip(name)
            if made is None or name == tip.hash or not self._lineage.descends(made, tip):
                self._arrived.pop(name, None)
                if self._current is not None and self._current.tip == name:
                    self._scope.cancel()
                    self._current = None

    def _holders(self, made: LineageEntry) -> list[PeerId]:
        """Who may give a state, the connected ones first: nodes that stand there or went on from
        there, and its voters.
        """
        there = self._members.holders_of(made.tip.hash)
        head = self._lineage.preferred_descendant(made.tip)
        later = self._lineage.path(made.tip, head) if head is not None else []
        beyond = [
            peer for certificate in later for peer in self._members.holders_of(certificate.hash)
        ]
        voters = [voter for voter in made.certificate.voters if voter != self._state_store.me]
        everybody = list(dict.fromkeys((*there, *beyond, *voters)))
        return sorted(everybody, key=lambda peer: not self._members.is_connected(peer))

    def _known(self, before: StateDownload | None) -> Iterator[KnownState]:
        """States that are here, of which some chunks may be the same: our own anchor, and what was
        fetched of another state.
        """
        anchor = self._state_store.anchor
        own = anchor.leaves.get(self._state_store.tip.hash)
        if own is not None:
            yield KnownState(own, anchor.value, anchor.momentum)
        partial = before.known() if before is not None else None
        if partial is not None:
            yield partial
