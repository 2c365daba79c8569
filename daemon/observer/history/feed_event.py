"""One event of the feed, as the event stream, the API and the store see it."""

from __future__ import annotations

from typing import Literal

import msgspec

from protocol.status import RoundSummary

Kind = Literal["round", "try", "peer", "training", "notice"]
"""What an event is about: a certificate, a try without one, a peer, training, or anything else."""


class FeedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened.

    `id` grows with every event, also over restarts of the observer. `at` is in unix seconds.
    `level` and `text` are those of the page's list. `round` is set for certificates and tries.
    """

    id: int
    at: float
    kind: Kind
    level: str
    text: str
    round: RoundSummary | None = None
