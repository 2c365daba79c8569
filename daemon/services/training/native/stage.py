"""Defines the two stages of an engine's life, as its peers see them.

An engine serves its peers from the start of the network. It has no state and no round until the
trainer has described the model: this stage is `Starting`. `RoundLoop` is the other stage.
"""

from __future__ import annotations

from typing import Protocol

from daemon.services.training.native.state.state_store import StateStore
from daemon.services.training.native.state.state_sync import StateSync
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.messages.beacon import HeldOutScore
from protocol.ports.trainer import TaskInfo
from protocol.round.state import RoundState


class Stage(Protocol):
    """What the parts that talk with peers ask of the engine."""

    @property
    def info(self) -> TaskInfo | None:
        """The task, once the trainer has described it."""

    @property
    def state(self) -> RoundState | None:
        """The state of the node's round."""

    @property
    def state_store(self) -> StateStore | None:
        """The node's durable state."""

    @property
    def state_sync(self) -> StateSync | None:
        """Moves the node along its lineage."""

    @property
    def score(self) -> HeldOutScore | None:
        """The node's newest score of an anchor on held-out samples."""

    @property
    def arriving(self) -> Tip | None:
        """The tip whose state is about to be complete here, if there is one."""

    def leaves(self, tip: Digest) -> list[Digest] | None:
        """Return the leaves of the state of `tip`, if `tip` is one of the last few."""

    def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        """Return bytes of the state of `tip`, if it is in memory."""

    def lineage_changed(self) -> None:
        """React to new certificates, or look at the same lineage again."""

    def members_changed(self) -> None:
        """React to peers that came, left or changed."""


class Starting:
    """The stage until the node has loaded its model: it has nothing to serve or to change."""

    state: RoundState | None = None
    state_store: StateStore | None = None
    state_sync: StateSync | None = None
    arriving: Tip | None = None
    score: HeldOutScore | None = None

    def __init__(self, info: TaskInfo | None = None) -> None:
        self.info = info

    def leaves(self, tip: Digest) -> list[Digest] | None:
        """Return None: there is no state yet."""
        return None

    def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        """Return None: there is no state yet."""
        return None

    def lineage_changed(self) -> None:
        """Do nothing: the round loop looks at the lineage when it begins."""

    def members_changed(self) -> None:
        """Do nothing: the round loop looks at the members when it begins."""
