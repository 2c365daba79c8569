"""The scores that one voter gave, and the statements that follow from them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from protocol.audit.score import AUDITS, verdict
from protocol.identity import PeerId

KEPT_PEERS = 1024
"""The peers whose scores a voter keeps: sixteen plans of 64. The longest unaudited goes first."""

MAX_STATEMENTS = 8
"""The statements of one offer."""


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


def statements_due(
    verdicts: Mapping[PeerId, bool],
    *,
    guilty: Collection[PeerId],
    recorded: Mapping[PeerId, bool],
    trusted: Collection[PeerId],
) -> list[tuple[PeerId, bool]]:
    """Return the statements (subject, favours) of the next offer, at most `MAX_STATEMENTS`.

    A statement is repeated until the membership record has it. Those against come first.

    Args:
        verdicts: what the audits say.
        guilty: peers with a fraud proof. The voter is against them, whatever the audits say.
        recorded: this voter's statements in the membership record.
        trusted: peers that need no word in their favour. A voter only takes back what it said
            against one of them.
    """
    wanted = {**verdicts, **dict.fromkeys(guilty, False)}
    due = [
        (peer, favours)
        for peer, favours in wanted.items()
        if recorded.get(peer) is not favours
        and not (favours and peer in trusted and peer not in recorded)
    ]
    return sorted(due, key=lambda statement: (statement[1], statement[0]))[:MAX_STATEMENTS]
