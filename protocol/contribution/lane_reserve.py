"""How many samples of each lane a tip reserves for the steps during the next exchange.

The range is fixed before anybody knows how long the exchange takes. So the reserve follows from the
last round: as many samples as a member drew in it before its offer. An exchange that takes longer
than the training before it begins the reserve again. What is left of a reserve is never drawn.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.messages.offer import Ready

FIRST_RESERVE = 1024
"""The reserve of the first round, in samples: 128 steps of the default batch.

Nobody has measured a step or an exchange of the run yet.
"""


def next_reserve(reserve: int, offers: Iterable[Ready]) -> int:
    """Return the reserve of the tip after a round, in samples of each lane.

    Args:
        reserve: the reserve of the round's parent, which stays where nobody drew anything.
        offers: the offers of the round's plan. A member that was alone counts with the mean of its
            rounds.
    """
    longest = max(
        (-(-offer.trajectory.drawn // offer.trajectory.rounds) for offer in offers), default=0
    )
    return longest or reserve
