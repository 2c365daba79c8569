"""Scores a model of a run on the run's held-out samples, with a worker of its own."""

from __future__ import annotations

import msgspec

from daemon.results.opened_model import OpenedModel
from protocol.errors import UserError
from protocol.ports.trainer import EvaluationFailed, HeldOutShare

WHOLE = HeldOutShare(index=0, count=1)


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


async def evaluate_model(opened: OpenedModel) -> ModelScore:
    """Score a model on all held-out samples.

    Raises `UserError("EVALUATION")` where the task cannot score it.
    """
    model, manifest = opened.model, opened.model.signed.open()
    try:
        scored = await opened.trainer.evaluate(model.parameters, WHOLE)
    except EvaluationFailed as failed:
        raise UserError(
            "EVALUATION",
            f"The task {manifest.task} cannot score this model.",
            why=str(failed),
            fix="see evaluate() in docs/write-a-task.md",
        ) from None
    return ModelScore(
        run=model.signed.run.hex(),
        name=manifest.name,
        round=model.number,
        loss=scored.loss,
        metrics=dict(scored.metrics),
        samples=scored.samples,
        seconds=scored.seconds,
        device=opened.info.device,
    )
