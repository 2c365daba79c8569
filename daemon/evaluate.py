"""Scores the newest model of a home on the run's held-out samples, with a worker of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from daemon.export import newest_checkpoint
from protocol.errors import UserError
from protocol.journal import JournalEvent, TrainerStopped
from protocol.ports.trainer import EvaluationFailed, HeldOutShare, TrainerLost
from protocol.run.manifest import SignedManifest

WHOLE = HeldOutShare(index=0, count=1)
# The worker's noise follows from a peer id. Scoring draws the same numbers for every peer.
NO_PEER = ""


class ModelScore(msgspec.Struct, frozen=True, kw_only=True):
    """What `evaluate --json` prints.

    `round` is the certificate whose model was scored. `loss` and `metrics` are means over `samples`
    held-out samples.
    """

    run: str
    name: str
    round: int
    loss: float
    metrics: dict[str, float]
    samples: int
    seconds: float
    device: str


async def evaluate_home(
    home: Path, signed: SignedManifest, settings: WorkerSettings, say: Callable[[str], None]
) -> ModelScore:
    """Score the newest whole checkpoint of a run on all held-out samples.

    Reads the home and changes nothing there, so a node may run on it. `say` gets a sentence for
    each damaged checkpoint.

    Raises:
        UserError: "NO_CHECKPOINT" where no checkpoint can be read, "TASK_CHANGED" where the task
            makes another model, "EVALUATION" where the task cannot score it; and what loading a
            task raises.
    """
    checkpoint, manifest = newest_checkpoint(home, signed, say), signed.open()
    ended: list[str] = []

    def note(event: JournalEvent) -> None:
        if isinstance(event, TrainerStopped):
            ended.append(event.reason)

    trainer = WorkerTrainer(manifest, NO_PEER, settings, note)
    async with trainer.running():
        info = await trainer.describe()
        if checkpoint.anchor.size != info.parameters:
            raise UserError(
                "TASK_CHANGED",
                "The task makes another model than the one in this home.",
                why=f"the checkpoint has {checkpoint.anchor.size:,} parameters,"
                f" the task {info.parameters:,}",
                fix="use the version of the task that the model was trained with",
                exit_code=2,
            )
        try:
            scored = await trainer.evaluate(checkpoint.anchor, WHOLE)
        except (EvaluationFailed, TrainerLost) as failed:
            raise UserError(
                "EVALUATION",
                f"The task {manifest.task} cannot score this model.",
                why=str(failed) or "; ".join(ended),
                fix="see evaluate() in docs/write-a-task.md",
            ) from None
    return ModelScore(
        run=signed.run.hex(),
        name=manifest.name,
        round=checkpoint.number,
        loss=scored.loss,
        metrics=dict(scored.metrics),
        samples=scored.samples,
        seconds=scored.seconds,
        device=info.device,
    )
