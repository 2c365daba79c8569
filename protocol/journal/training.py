"""Journal events of the trainer: what was trained, and why training failed."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from protocol.identity import PeerId
from protocol.journal.base import JournalEvent
from protocol.limits.limits import LimitPause


class TrainerReady(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The trainer has loaded the task and can train."""

    device: str
    parameters: int
    threads: int


class TrainingHeld(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A person paused training (`held`), or resumed it."""

    held: bool


class LimitsReport(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Which limits of the volunteer pause training now, and which others hold.

    Without `pauses`, no limit pauses training. `caps` are sentences about what training may use;
    `blind` names the limits that this machine cannot keep.
    """

    pauses: tuple[LimitPause, ...]
    caps: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()


class TrainerStopped(JournalEvent, frozen=True, kw_only=True, tag=True):
    """The trainer died and is being restarted.

    If `limit` is above 0, the task itself failed, and a person must correct it. `failures` counts
    such failures so far. After `limit` restarts the trainer stays down and `for_good` is True.
    `fix` says what to do. `trace` is the traceback.
    """

    reason: str
    restarts: int
    failures: int = 0
    limit: int = 0
    for_good: bool = False
    fix: str = ""
    trace: str = ""


class BatchSkipped(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A batch raised an exception, or its loss or gradient was not finite.

    `where` holds the batch's data indices and positions. Since the trainer started, `skipped` of
    `drawn` batches were skipped. After the first skipped batch, an event is recorded only when
    `skipped` has doubled.
    """

    what: str
    where: str
    skipped: int
    drawn: int
    trace: str = ""


class TaskDiffers(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A peer's task differs from this node's, so neither plans with the other.

    `difference` is the first difference, a sentence without its full stop. It is empty when the
    tasks agree again.
    """

    peer: PeerId
    difference: str


class Trained(JournalEvent, frozen=True, kw_only=True, tag=True):
    """A stretch of local training ended, and its result was handed to the round."""

    number: int
    steps: int
    samples: int
    loss: float | None
    seconds: float


class TrainingProgress(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Training continues: the samples since the round began, and the current speed."""

    samples: int
    loss: float | None
    samples_per_second: float
    durable: ClassVar[bool] = False


class WorkDropped(JournalEvent, frozen=True, kw_only=True, tag=True):
    """Work was too old to be offered (`max_carry_rounds`), or a restart undid it."""

    samples: int
    reason: str


class WorkAudited(JournalEvent, frozen=True, kw_only=True, tag=True):
    """This voter audited a contributor of a certificate (`protocol/audit`).

    `scores` are those of the last audits of the peer, this one last. `favours` says whether this
    voter is for the peer; None before it has a verdict. `reason` says why a score is not measured.
    """

    number: int
    peer: PeerId
    score: float
    scores: tuple[float, ...]
    favours: bool | None
    reason: str = ""


class AnchorScored(JournalEvent, frozen=True, kw_only=True, tag=True):
    """This node scored the anchor of a certificate on its share of the held-out samples.

    `loss` is the mean over `samples`. `metrics` are the task's own.
    """

    number: int
    # Hex.
    certificate: str
    loss: float
    samples: int
    seconds: float
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
