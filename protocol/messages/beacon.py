"""The beacon: what a node tells the run about itself every few seconds."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.messages.base import Hash, Message, Natural, Text
from protocol.ports.endpoint import Endpoint
from protocol.run.task_digest import Name

MAX_SCORED_SAMPLES = 1 << 32
"""The most held-out samples that one score may claim."""


class HeldOutScore(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """How one node scored the anchor of a certificate on its share of the held-out samples.

    It is the node's own claim: nobody checks it.
    """

    # The number of the certificate.
    number: Natural
    # The hash of the certificate.
    certificate: Hash
    # The mean over the samples. Finite.
    loss: float
    samples: Annotated[int, Meta(ge=1, le=MAX_SCORED_SAMPLES)]

    def __post_init__(self) -> None:
        if not math.isfinite(self.loss):
            raise ValueError(f"a held-out loss of {self.loss}")


class Beacon(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A node's identity and its position in the run, gossiped every few seconds.

    `serial` grows: an older beacon never replaces a newer one.
    """

    serial: Natural
    name: Text
    role: Text
    # The number of the tip.
    number: Natural
    tip: Hash
    view: Natural
    phase: Text
    samples: Natural
    loss: float | None
    samples_per_second: float
    device: Annotated[str, Meta(max_length=128)]
    # None for an observer.
    endpoint: Endpoint | None
    # The name of the task on this node (`protocol/run/task_digest.py`); empty for an observer and
    # while the worker starts.
    task: Name = b""


class ScoredBeacon(
    Beacon, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A beacon with its sender's newest score. Only runs of rules 3 and later have it."""

    score: HeldOutScore


def score_of(beacon: Beacon) -> HeldOutScore | None:
    """Return the score that a beacon carries; None for a beacon without one."""
    return beacon.score if isinstance(beacon, ScoredBeacon) else None


def with_score(beacon: Beacon, score: HeldOutScore | None) -> Beacon:
    """Return the beacon with a score, if there is one."""
    if score is None:
        return beacon
    fields = {name: getattr(beacon, name) for name in Beacon.__struct_fields__}
    return ScoredBeacon(**fields, score=score)
