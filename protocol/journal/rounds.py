"""Journal events of rounds: plans, views, certificates, catching up."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from protocol.identity import PeerId
from protocol.journal.base import JournalEvent

KEPT_WHOLE = 0.9
"""From this share on, the clip took nothing that matters. Single chunks of honest work are clipped
now and then.
"""


class Contributor(msgspec.Struct, frozen=True, kw_only=True):
    """What one member contributed to a round."""

    peer: PeerId
    samples: int
    loss: float | None
    # What its samples weighed in the mean; None where the journal does not say, which is all.
    weight: int | None = None
    # Which share of its work the clip left in the chunks that this node summed; None where this
    # node summed none, or where nothing is clipped.
    kept: float | None = None

    @property
    def is_clipped(self) -> bool:
        """Whether the clip took a part of the work that shows in the model."""
        return self.kept is not None and self.kept < KEPT_WHOLE


class Newcomer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that is no member yet, and how many of the voters are for and against it."""

    peer: PeerId
    favours: int
    against: int
    voters: int


class MemberPlace(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Where a plan put a member: its group, and its place in the network as the plan's offers say.

    The place is a network coordinate in microseconds (`protocol/network/coordinate.py`).
    `is_measured` is False where nobody knows it.
    """

    group: int
    is_measured: bool = False
    x_us: int = 0
    y_us: int = 0
    z_us: int = 0
    height_us: int = 0


class PhaseEntered(JournalEvent, frozen=True, kw_only=True, tag=True):
    """This node entered a phase of a round. `reason` is a sentence with the numbers in it."""

    number: int
    view: int
    # A value of protocol.round.phase.Phase.
    phase: str
    reason: str


class Planned(JournalEvent, frozen=True, kw_only=True, tag=True):
    """This node received or made the plan of a view."""

    number: int
    view: int
    leader: PeerId
    members: tuple[PeerId, ...]
    reason: str


class ViewPassed(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A view ended without a certificate."""

    number: int
    view: int
    reason: str


class RoundCertified(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A certificate was verified, and a node (not an observer) adopted it.

    `outcome` says what became of this node's work:

    counted   the certificate counts it
    late      this node had work, but was not in the plan
    lost      this node was in the plan, but not in the inclusion
    idle      this node had nothing to offer
    observed  this node is an observer, the certificate is a merge, or this node was on another
              branch
    """

    number: int
    view: int
    certificate: str  # hex
    parent: str  # hex
    members: tuple[PeerId, ...]
    shares: tuple[Contributor, ...]
    samples: int
    loss: float | None
    # Hex, as this node computed it; empty if this node only observed.
    state_digest: str
    outcome: str
    # Seconds that this node spent in train, ready, scatter, reduce and vote.
    phase_seconds: dict[str, float]
    reason: str
    # Why the plan formed the groups that it formed.
    plan: str = ""
    # Members of each group of the plan.
    group_sizes: tuple[int, ...] = ()
    # Where the plan put each of `members`; empty in journals of older versions.
    places: tuple[MemberPlace, ...] = ()
    # What the plan predicted for scatter and reduce together.
    predicted_s: float | None = None
    # Members whose votes the certificate carries; empty in journals of older versions.
    voters: tuple[PeerId, ...] = ()
    # The length of the next round and why the plan chose it; None where all rounds have one length.
    next_round_s: float | None = None
    next_round_reason: str = ""
    # Since rules 4: the voters after this certificate, and the newcomers in its plan.
    record_voters: tuple[PeerId, ...] = ()
    newcomers: tuple[Newcomer, ...] = ()
    # Contributors whose weight is below their samples.
    clipped: tuple[PeerId, ...] = ()
    # Whether not more than half of the voters signed it.
    is_degraded: bool = False


class RoundAveraged(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A round of an engine without certificates ended.

    Nothing about such a round is proved: `shares` are self-reported, and the round earns nothing.

    `outcome` is one of:

    averaged  this node applied the mean
    partial   the engine reported success, but parts were missing, so this node applied nothing
    apart     this node's parameters diverged from the majority's, so it loads the majority's
    failed    no mean was computed
    """

    number: int
    outcome: str
    shares: tuple[Contributor, ...]
    samples: int
    loss: float | None
    phase_seconds: dict[str, float]
    reason: str


class Alone(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A round ended without another node. The work is kept as the next offer."""

    number: int
    samples_pending: int
    reason: str


class QuorumReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """How many voters of a run of rules 4 are connected, and whether they may certify.

    `reason` says why they may not; empty where they may.
    """

    # The voters after this node's tip, those of them that are connected, and those that a full
    # certificate needs.
    voters: int
    connected: int
    needed: int
    # Whether this node goes on with fewer voters now.
    patient: bool
    # The last full certificate that this node adopted since its start, or the one it started from.
    last_full: int
    # Whether a quorum signed the certificate that this node is at.
    full: bool
    reason: str = ""
    durable: ClassVar[bool] = False


class CaughtUp(JournalEvent, frozen=True, kw_only=True, tag=True):
    """This node fetched an anchor from peers and verified it against its certificate.

    With `replayed` it fetched the results of the rounds that it missed, and replayed them.
    """

    number: int
    source: PeerId
    size_bytes: int
    seconds: float
    replayed: bool = False


class Stuck(JournalEvent, frozen=True, kw_only=True, tag=True):
    """This node cannot continue without help. `reason` is the sentence that a person needs."""

    reason: str


class CheckpointWritten(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The full state after a round is on disk.

    `hourly_bytes` is all that this node wrote in the last hour.
    """

    number: int
    size_bytes: int
    seconds: float
    hourly_bytes: int = 0
    durable: ClassVar[bool] = False
