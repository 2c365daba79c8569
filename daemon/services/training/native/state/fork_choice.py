"""Where the lineage leads a node: to a certificate ahead of it, to a merge with a branch beside it,
or nowhere.

A certificate whose state nobody gives never holds a node for longer than an answer takes, and one
whose state comes slowly for few rounds (`HELD_ROUNDS`). After one such certificate the node goes on
with its own lineage for a while, whatever else is ahead, and states are only sought beside that:
one that comes to be here whole is followed. A merge whose other state did not come is tried again
after a while. A merge that came to nothing in its own views is tried again at once: nothing tells
this module that it failed (`protocol/round/views.py`, `pass_view` and `go_alone`).
"""

from __future__ import annotations

from itertools import islice
from typing import Protocol

from daemon.services.training.native.state.downloads import ADVANCING_S
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from protocol.certificates.certificate import OpenCertificate, Tip
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.round.events import CertificateReceived, ForkFound

# After a download that nobody could give: then it is asked for again.
WITHOUT_S = 60.0
# After a merge that failed: its branch may be dying, and rounds go on meanwhile.
MERGE_RETRY_S = 10.0
MERGE_RETRY_MOST_S = 160.0  # after many that failed in a row
# Of the time that a download kept this node out of rounds: for so long nothing else does.
FREE_PER_HELD = 10.0
REMEMBERED = 64  # certificates that nobody gave


class DownloadProgress(Protocol):
    """What the fork choice asks about downloads. `Downloads` implements it."""

    @property
    def underway(self) -> Digest | None:
        """The certificate whose state is being downloaded, while that advances."""

    @property
    def arrived(self) -> frozenset[Digest]:
        """The certificates whose states are here, complete."""


class ForkChoice:
    """One node's. Times are seconds of one monotonic clock."""

    def __init__(
        self,
        lineage: Lineage,
        members: Members,
        downloads: DownloadProgress,
    ) -> None:
        self._lineage = lineage
        self._members = members
        self._downloads = downloads
        # Certificates whose state nobody gave: until when to do without, and who was there to ask.
        self._without: dict[Digest, tuple[float, frozenset[PeerId]]] = {}
        # Until then no certificate stops this node's rounds before its state is here.
        self._wary_until = 0.0
        self._merge_after = 0.0
        self._merges_failed = 0

    def leads(
        self, tip: Tip, now: float, computed: Digest | None = None
    ) -> CertificateReceived | ForkFound | None:
        """What happens next to a node that stands at `tip`. The way ahead goes before any merge.

        `computed` names the certificate that would have the state which this node computed: where
        it is certified, nothing need come.
        """
        ours = self._lineage.entry(computed) if computed is not None else None
        if ours is not None and self._lineage.descends(ours.tip, tip):
            return CertificateReceived(certificate=ours.certificate)
        wanted = self._wanted(tip, now)
        if wanted is not None:
            return (
                CertificateReceived(certificate=wanted)
                if now >= self._wary_until or wanted.hash in self._downloads.arrived
                else None
            )
        if now >= self._merge_after:
            for other in self._lineage.other_branches(
                tip, lambda head: bool(self._members.live_at(head.hash))
            ):
                return ForkFound(other=other)
        return None

    def seeks(self, tip: Tip, now: float) -> OpenCertificate | None:
        """The certificate whose state is to be downloaded beside this node's own rounds."""
        return self._wanted(tip, now) if now < self._wary_until else None

    def _wanted(self, tip: Tip, now: float) -> OpenCertificate | None:
        """The certificate to go to: the preferred one ahead, or one on the way there whose state is
        here or coming already.

        Else the next one.
        """
        near = [
            name
            for name in (*sorted(self._downloads.arrived), self._downloads.underway)
            if name is not None
        ]
        for head in self._lineage.descendants(tip):
            on_the_way = [name for name in near if self._is_between(name, tip, head)]
            for name in (*on_the_way, head.hash):
                made = self._lineage.entry(name)
                if made is not None and (
                    name in self._downloads.arrived or not self._is_without(name, now)
                ):
                    return made.certificate
        return None

    def _is_between(self, name: Digest, tip: Tip, head: Tip) -> bool:
        there = self._lineage.tip(name)
        return (
            there is not None
            and there.hash != tip.hash
            and self._lineage.descends(there, tip)
            and self._lineage.descends(head, there)
        )

    def _is_without(self, name: Digest, now: float) -> bool:
        """Whether nobody gave this state, and nobody has come since who might."""
        until, asked = self._without.get(name, (0.0, frozenset()))
        return now < until and self._members.live_at(name) <= asked

    def state_unavailable(self, name: Digest, now: float, held_s: float = 0.0) -> None:
        """The state of this certificate could not be had, did not come on, or comes so slowly that
        it kept this node out of rounds for `held_s` seconds: then it is sought beside them."""
        free_s = max(WITHOUT_S, FREE_PER_HELD * held_s)
        self._wary_until = max(self._wary_until, now + free_s)
        if name == self._downloads.underway and held_s > ADVANCING_S:
            # Older than that, it counts as coming for the bytes that it brought.
            return
        self._without.pop(name, None)
        self._without[name] = (now + WITHOUT_S, self._members.live_at(name))
        for old in list(islice(self._without, max(0, len(self._without) - REMEMBERED))):
            del self._without[old]

    def merge_failed(self, now: float) -> None:
        """A merge came to nothing: rounds go on for longer each time."""
        self._merge_after = now + min(MERGE_RETRY_S * 2.0**self._merges_failed, MERGE_RETRY_MOST_S)
        self._merges_failed += 1

    def moved(self, *, downloaded: bool = False) -> None:
        """The node came to another certificate; one with a `downloaded` state keeps its promise."""
        self._merges_failed = 0
        if downloaded:
            self._wary_until = 0.0
