"""The two stages of an engine's life, as its peers see them.

An engine serves its peers from the start of the network. Until the trainer has described the model
it has no state and no round: then it is `Starting`. `RoundLoop` is the other stage.
"""

from __future__ import annotations

from typing import Protocol

from daemon.services.training.native.state.state_store import StateStore
from daemon.services.training.native.state.state_sync import StateSync
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.ports.trainer import TaskInfo
from protocol.round.state import RoundState


class Stage(Protocol):
    """What the parts that talk with peers ask of the engine."""

    @property
    def info(self) -> TaskInfo | None:
        """The task, once the trainer has described it."""

    @property
    def state(self) -> RoundState | None:
        """Where the node stands in its round."""

    @property
    def state_store(self) -> StateStore | None:
        """The node's durable state."""

    @property
    def state_sync(self) -> StateSync | None:
        """The node's way along its lineage."""

    @property
    def arriving(self) -> Tip | None:
        """Where the node will stand in a moment, with nearly all of a state here."""

    def leaves(self, tip: Digest) -> list[Digest] | None:
        """The leaves of the state of `tip`, if it is one of the last few."""

    def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        """Bytes of the anchor, while it is that of `tip`."""

    def lineage_changed(self) -> None:
        """Certificates joined the lineage, or there is reason to look at it again."""

    def members_changed(self) -> None:
        """Something changed about who is there."""


class Starting:
    """The stage before the model's state is here: there is nothing to tell or to change."""

    state: RoundState | None = None
    state_store: StateStore | None = None
    state_sync: StateSync | None = None
    arriving: Tip | None = None

    def __init__(self, info: TaskInfo | None = None) -> None:
        self.info = info

    def leaves(self, tip: Digest) -> list[Digest] | None:
        return None

    def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        return None

    def lineage_changed(self) -> None:
        """Do nothing: the round loop looks at the lineage when it begins."""

    def members_changed(self) -> None:
        """Do nothing: the round loop looks at the members when it begins."""
