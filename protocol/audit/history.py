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
