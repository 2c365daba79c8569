"""The scores that one voter gave, and the verdicts that follow from them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from protocol.audit.score import AUDITS, verdict
from protocol.identity import PeerId

KEPT_PEERS = 1024
"""The peers whose scores a voter keeps: sixteen plans of 64. The longest unaudited goes first."""


class AuditHistory:
    """The last scores of each peer, and the verdict that stands."""

    def __init__(self) -> None:
        self._scores: OrderedDict[PeerId, tuple[float, ...]] = OrderedDict()
        self._verdicts: dict[PeerId, bool] = {}
        self._missed: OrderedDict[PeerId, None] = OrderedDict()

    def misses(self, peer: PeerId) -> bool:
        """Note that no stream to a peer opened for an audit.

        A peer that dies after a round is not judged for that. One that was out of reach before,
        and has contributed since, refuses to be audited.

        Returns:
            Whether the audit before this one missed the peer, too.
        """
        before = peer in self._missed
        self._missed[peer] = None
        while len(self._missed) > KEPT_PEERS:
            self._missed.popitem(last=False)
        return before

    def reaches(self, peer: PeerId) -> None:
        """Note that a peer answered."""
        self._missed.pop(peer, None)

    def add(self, peer: PeerId, score: float) -> bool | None:
        """Note a score. Returns the verdict that stands now; None before the first one."""
        self._scores[peer] = (*self._scores.pop(peer, ()), score)[-AUDITS:]
        if (said := verdict(self._scores[peer])) is not None:
            self._verdicts[peer] = said
        while len(self._scores) > KEPT_PEERS:
            gone, _ = self._scores.popitem(last=False)
            self._verdicts.pop(gone, None)
        return self._verdicts.get(peer)

    def scores(self, peer: PeerId) -> tuple[float, ...]:
        """Return the last scores of a peer, the oldest first."""
        return self._scores.get(peer, ())

    @property
    def verdicts(self) -> Mapping[PeerId, bool]:
        """For each judged peer, whether this voter is for it."""
        return self._verdicts
