"""Journal events of the node itself: its start and end, warnings, and lasting troubles."""

from __future__ import annotations

from typing import ClassVar

from protocol.identity import PeerId
from protocol.journal.base import JournalEvent

DISK_FULL = "DISK_FULL"
"""The code of every warning that a write to disk failed."""

NOT_OFFERED = "nothing can be offered"
"""The first words of a `DISK_FULL` warning that keeps the node out of rounds."""


class NodeStarted(JournalEvent, frozen=True, kw_only=True, tag=True):
    """This node or observer started."""

    peer: PeerId
    name: str
    role: str  # "node" or "observer"
    version: str
    addresses: tuple[str, ...]
    run: str  # run id, hex
    run_name: str
    task: str
    engine: str
    min_peers: int
    # Who may take part: a policy of the manifest's [admission].
    admits: str = "open"
    # The run's owner; empty where it has none.
    owner: PeerId = ""
    # The chain that the run pays on; "none" where it pays nothing.
    chain: str = "none"
    # One sentence for each setting that the node chose by itself.
    assumed: tuple[str, ...] = ()


class AddressesChanged(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Others can join at other addresses than before."""

    addresses: tuple[str, ...]


class Warned(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Something happened that a person should know, but that does not stop the node."""

    code: str
    message: str


class Trouble(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A condition holds until a person acts. The verdict shows it for as long.

    The same `code` with an empty message ends the condition.

    `level` is "bad" if the condition makes the work worthless, else "warning".
    """

    code: str
    level: str
    message: str


class ClockReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """How this machine's clock compares with those of peers.

    It is `offset_s` ahead of most of `compared` clocks, 0 where it agrees with most. `text` says
    so; it is empty where the clock is right.
    """

    compared: int
    offset_s: float
    text: str
    durable: ClassVar[bool] = False


# The tag stays "Stopped": journals on disk carry that word.
class DiskReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """What this node wrote to its disk: since its start, and in the last hour."""

    written_bytes: int
    hourly_bytes: int
    durable: ClassVar[bool] = False


class NodeStopped(JournalEvent, frozen=True, kw_only=True, tag="Stopped"):
    """This node or observer stopped."""

    reason: str


class OwnerOrdered(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The run's owner started, paused or stopped training on every node."""

    serial: int
    # "start", "pause" or "stop".
    action: str
