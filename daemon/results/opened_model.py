"""Opens a model for use: its parameters, and a worker that has loaded the run's task."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from daemon.config.settings import Config
from daemon.device.process.trainer import WorkerTimeouts, WorkerTrainer
from daemon.home.layout import ensure_home
from daemon.home.recent_state import chosen_run
from daemon.results.model_choice import ModelChoice
from daemon.results.run_model import RunModel, model_of_home
from daemon.services.training.worker_settings import worker_settings
from protocol.errors import UserError
from protocol.journal import JournalEvent, TrainerStopped
from protocol.ports.trainer import TaskInfo, TrainerLost
from protocol.run.manifest import SignedManifest

# The worker's noise follows from a peer id. Here it is the same for every peer.
NO_PEER = ""
# A long text on a slow machine is one command of the worker.
ANSWER_S = 3600.0

Say = Callable[[str], None]


class OpenedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model, and a worker that computes with it."""

    model: RunModel
    info: TaskInfo
    trainer: WorkerTrainer


async def choose_model(config: Config, choice: ModelChoice, say: Say) -> SignedManifest | RunModel:
    """Return a model of the home; the manifest alone where the swarm has the model.

    Raises `UserError`: see `chosen_run`, `model_of_home` and `find_manifest`.
    """
    if choice.join:
        # A late import: the network takes two seconds, which a model of the home does not need.
        from daemon.node.manifest_search import find_manifest  # noqa: PLC0415

        ensure_home(config.home)
        return await find_manifest(config, config.home)
    signed = chosen_run(config.home, choice.run)
    return model_of_home(config.home, signed, choice.certificate, say)


@asynccontextmanager
async def opened_model(config: Config, choice: ModelChoice, say: Say) -> AsyncIterator[OpenedModel]:
    """Read or download the model, and keep a worker with its task running inside the block.

    Raises:
        UserError: what `choose_model` and loading a task raise; "TASK_CHANGED" where the task makes
            another model, "WORKER" where the worker died.
    """
    config = msgspec.structs.replace(
        config, network=msgspec.structs.replace(config.network, join=choice.join)
    )
    chosen = await choose_model(config, choice, say)
    signed = chosen.signed if isinstance(chosen, RunModel) else chosen
    async with worker_for(signed, config) as (trainer, info):
        if isinstance(chosen, RunModel):
            model = chosen
        else:
            # A late import, as in `choose_model`.
            from daemon.results.swarm_model import model_of_swarm  # noqa: PLC0415

            model = await model_of_swarm(config, signed, info.parameters, choice.certificate, say)
        if model.parameters.size != info.parameters:
            raise UserError(
                "TASK_CHANGED",
                "The task makes another model than the one in this home.",
                why=f"the checkpoint has {model.parameters.size:,} parameters,"
                f" the task {info.parameters:,}",
                fix="use the version of the task that the model was trained with",
                exit_code=2,
            )
        yield OpenedModel(model=model, info=info, trainer=trainer)


@asynccontextmanager
async def worker_for(
    signed: SignedManifest, config: Config
) -> AsyncIterator[tuple[WorkerTrainer, TaskInfo]]:
    """Keep a worker with a run's task running inside the block.

    Raises `UserError` where the task cannot be loaded, and "WORKER" where the worker died.
    """
    ended: list[str] = []

    def note(event: JournalEvent) -> None:
        if isinstance(event, TrainerStopped):
            ended.append(event.reason)

    trainer = WorkerTrainer(
        signed.open(),
        NO_PEER,
        worker_settings(config),
        note,
        timeouts=WorkerTimeouts(first_step_s=ANSWER_S),
    )
    async with trainer.running():
        info = await trainer.describe()
        try:
            yield trainer, info
        except TrainerLost as lost:
            raise UserError(
                "WORKER",
                "The worker died.",
                why="; ".join(ended) or str(lost),
                fix="free some memory, or check the task with hypergpud task check",
            ) from None
