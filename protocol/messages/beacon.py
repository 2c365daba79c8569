"""The beacon: what a node tells the run about itself every few seconds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.messages.base import Hash, Message, Natural, Text
from protocol.ports.endpoint import Endpoint
from protocol.run.task_digest import Name


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
