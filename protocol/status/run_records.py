"""The records of a run in a status: its summary, its rounds and the points of its loss curves.

As in `records.py`, the field names are a contract, and the imports must load quickly.
"""

from __future__ import annotations

import msgspec

from protocol.status.peer_records import PeerId

KEPT_ROUNDS = 40
"""Rounds of the page's strip."""

KEPT_POINTS = 600
"""Points of the loss curve: one for each pixel column of its widest drawing."""


class QuorumSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the voters of a run of rules 4 that are connected may certify.

    Of `voters`, `connected` are connected, and a full certificate needs `needed`. `patient` says
    that this node goes on with fewer. `last_full` is the number of the last full certificate that
    this node adopted, and `full` whether the one that it is at is full. `reason` says why nothing
    is certified; empty where something may be.
    """

    voters: int
    connected: int
    needed: int
    patient: bool
    last_full: int
    full: bool
    reason: str = ""


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The training job, as far as this node has verified its certificates.

    `nodes` counts the nodes that train, this one included, heard from in the last `HEARD_S`
    seconds. `samples_per_second` is the sum that these nodes report. `plan` says why the last plan
    formed its groups. `prediction_error` is the median error of the kept rounds' predictions, as a
    share of the time that the exchange took.

    `loss` is what the members claim for their own training data. `held_out` is the mean of the
    members' scores of `held_out_round`, the newest scored certificate: `held_out_scorers` members
    scored `held_out_samples` samples that no member trains on.
    """

    run: str
    name: str
    task: str
    engine: str
    number: int
    tip: str
    state_digest: str
    view: int
    parameters: int
    rounds_certified: int
    samples_certified: int
    loss_first: float | None
    loss: float | None
    round_seconds: float | None
    nodes: int = 0
    samples_per_second: float = 0.0
    plan: str = ""
    # The length of the next round, and why; None before the first certificate, and where all rounds
    # of the run have one length.
    next_round_s: float | None = None
    next_round_reason: str = ""
    prediction_error: float | None = None
    held_out_first: float | None = None
    held_out: float | None = None
    held_out_round: int = 0
    held_out_samples: int = 0
    held_out_scorers: int = 0
    # Who may take part, and the run's owner, who invites; empty where it has none.
    admits: str = "open"
    owner: PeerId = ""
    # None before the first report, and in runs of rules 2 and 3.
    quorum: QuorumSummary | None = None
    # The usual time between two certificates: the median of the last ones, and at least what the
    # last plan chose. None before the second certificate.
    usual_round_s: float | None = None
    # What the run's owner ordered: "pause", "stop", or empty while training goes on.
    order: str = ""
    # How far that order got: "complete", "partial", "failed", or empty; and who still trains.
    order_outcome: str = ""
    order_training: tuple[PeerId, ...] = ()
    # The chain that the run pays on: "none" where it pays nothing, empty before the run is known.
    chain: str = ""
    # Why the run counts as standing still; empty while certificates come as usual.
    standstill: str = ""


class RoundSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One certified or failed round.

    `outcome` is that of `RoundCertified`, or "missed" for a view that passed. `group_sizes` has the
    members of each group. `predicted_s` is for scatter and reduce together. `loss` is what the
    members claim for their own training data, `held_out` the mean of the scores of
    `held_out_scorers` members.
    """

    number: int
    view: int
    certificate: str
    state_digest: str
    at: float
    outcome: str
    members: tuple[PeerId, ...]
    contributors: tuple[PeerId, ...]
    samples: int
    loss: float | None
    phase_seconds: dict[str, float]
    reason: str
    plan: str = ""
    group_sizes: tuple[int, ...] = ()
    predicted_s: float | None = None
    held_out: float | None = None
    held_out_scorers: int = 0
    # Contributors from whose work the clip took a part, as far as this node summed it.
    clipped: tuple[PeerId, ...] = ()
    # Samples of each of `contributors`, in the same order.
    contributed: tuple[int, ...] = ()

    @property
    def exchange_s(self) -> float:
        """Seconds of scatter and reduce on this node; 0 if it took no part."""
        return self.phase_seconds.get("scatter", 0.0) + self.phase_seconds.get("reduce", 0.0)


class LossPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the training loss that the members claim.

    `samples` is how many were certified up to and with this round.
    """

    number: int
    at: float
    samples: int
    loss: float


class HeldOutPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the held-out loss: `scorers` members scored `scored` held-out samples.

    `samples` is how many were certified up to and with this round. `training` is the training loss
    that the members claim for it.
    """

    number: int
    at: float
    samples: int
    loss: float
    training: float | None
    scored: int
    scorers: int
