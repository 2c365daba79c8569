"""Defines the two halves of the engine: what talks with peers, and what works on the model."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from daemon.services.training.genesis import genesis_parameters
from daemon.services.training.native.audit.auditor import Auditor
from daemon.services.training.native.audit.contributions import Contributions
from daemon.services.training.native.audit.fraud_proofs import FraudProofs
from daemon.services.training.native.audit.work_auditor import WorkAuditor
from daemon.services.training.native.engine_context import EngineContext, NodePorts
from daemon.services.training.native.exchange.data_plane import DataPlane
from daemon.services.training.native.rounds.message_translator import MessageTranslator
from daemon.services.training.native.rounds.round_log import RoundLog
from daemon.services.training.native.state.branch_policy import BranchPolicy
from daemon.services.training.native.state.downloads import Downloads
from daemon.services.training.native.state.fork_choice import ForkChoice
from daemon.services.training.native.state.held_store import HeldStore
from daemon.services.training.native.state.return_trial import ReturnTrial
from daemon.services.training.native.state.state_store import StateStore
from daemon.services.training.native.state.state_sync import StateSync
from daemon.services.training.native.training.evaluator import Evaluator
from daemon.services.training.native.training.trainer_link import TrainerLink
from daemon.swarm.follower import Follower
from daemon.swarm.initial_transfer import obtain_initial
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from daemon.swarm.messenger import Messenger
from daemon.swarm.state_transfer import StateServer
from protocol.averaging.vector_layout import Vector
from protocol.certificates.tip import Tip
from protocol.errors import OurFault
from protocol.journal import Warned
from protocol.membership.owner_record import OwnerRecords
from protocol.ports.trainer import TaskInfo, Trainer
from protocol.round.events import Event
from protocol.rules.versions import RULES_2, RULES_4


class PeerParts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that talk with peers. They exist before the network starts."""

    lineage: Lineage
    members: Members
    messenger: Messenger
    follower: Follower
    translator: MessageTranslator
    data_plane: DataPlane
    auditor: Auditor
    contributions: Contributions
    fraud_proofs: FraudProofs
    state_server: StateServer
    owner_records: OwnerRecords


class ModelParts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that work on the model. They exist once the trainer has described the model."""

    state_store: StateStore
    downloads: Downloads
    fork_choice: ForkChoice
    return_trial: ReturnTrial
    trainer_link: TrainerLink
    evaluator: Evaluator
    work_auditor: WorkAuditor
    state_sync: StateSync


async def resume_model(
    *,
    context: EngineContext,
    ports: NodePorts,
    peers: PeerParts,
    info: TaskInfo,
    trainer: Trainer,
    round_log: RoundLog,
    emit: Callable[[Event], None],
) -> tuple[ModelParts, str]:
    """Build the parts that work on the model, and resume from disk.

    Args:
        context: The run, and the identity of the node.
        ports: The ports of the node.
        peers: The parts that talk with peers.
        info: The trainer's description of the model.
        trainer: Trains the model.
        round_log: Records each certificate that the node adopts.
        emit: Receives the events for the round machine.

    Returns:
        The parts, and where the node resumes, as the words of a sentence.

    Raises:
        UserError: The home cannot be resumed; see `StateStore.resume`.
    """
    state_store = StateStore(
        context=context,
        info=info,
        lineage=peers.lineage,
        disk=ports.disk,
        offload=ports.offload,
        record=ports.record,
        genesis=lambda: _genesis(context, ports, info, trainer),
    )
    state_store.anchor.is_read = peers.state_server.is_read
    state_store.full_states.lives = peers.members.lives
    origin = await state_store.resume()
    await peers.fraud_proofs.resume()
    downloads = Downloads(
        network=ports.network,
        lineage=peers.lineage,
        members=peers.members,
        state_store=state_store,
        offload=ports.offload,
        emit=emit,
        record=ports.record,
        refuse=ports.refuse,
    )
    trainer_link = TrainerLink(trainer, state_store, context.manifest.round, ports.record)
    held = await _held(context, ports, peers.lineage, state_store.tip)
    policy = BranchPolicy(peers.lineage, held, _warner(ports)) if held is not None else None
    fork_choice = ForkChoice(peers.lineage, peers.members, downloads, policy)
    parts = ModelParts(
        state_store=state_store,
        downloads=downloads,
        fork_choice=fork_choice,
        return_trial=ReturnTrial(
            context=context,
            ports=ports,
            trainer=trainer,
            info=info,
            state_store=state_store,
            downloads=downloads,
            lineage=peers.lineage,
            fork_choice=fork_choice,
        ),
        trainer_link=trainer_link,
        evaluator=Evaluator(
            trainer=trainer,
            state_store=state_store,
            limit=context.evaluation_share,
            # Members of rules 2 cannot read a beacon with a score.
            held_out=info.held_out if context.manifest.rules > RULES_2 else 0,
            offload=ports.offload,
            record=ports.record,
        ),
        work_auditor=WorkAuditor(
            context=context,
            ports=ports,
            trainer=trainer,
            info=info,
            state_store=state_store,
            lineage=peers.lineage,
            contributions=peers.contributions,
        ),
        state_sync=StateSync(
            lineage=peers.lineage,
            follower=peers.follower,
            state_store=state_store,
            trainer_link=trainer_link,
            offload=ports.offload,
            round_log=round_log,
            record=ports.record,
            held=held,
        ),
    )
    return parts, origin


async def _held(
    context: EngineContext, ports: NodePorts, lineage: Lineage, tip: Tip
) -> HeldStore | None:
    """Return since when this node has held its certificates; None before rules 4."""
    if context.manifest.rules < RULES_4:
        return None
    held = HeldStore(
        run=context.run,
        disk=ports.disk,
        lineage=lineage,
        wall_clock_s=ports.wall_clock_s,
        warn=_warner(ports),
    )
    await held.resume(tip)
    return held


def _warner(ports: NodePorts) -> Callable[[str, str], None]:
    return lambda code, message: ports.record(Warned(code=code, message=message))


async def _genesis(
    context: EngineContext, ports: NodePorts, info: TaskInfo, trainer: Trainer
) -> Vector:
    """Return the parameters with which the run begins, shape (parameters,)."""
    manifest = context.manifest
    if not manifest.initial:
        return await genesis_parameters(trainer, info, manifest.seed, ports.offload)
    if context.initial is None:
        raise OurFault("a node in a run with initial weights has no place for them")
    warned: list[str] = []

    def wait(reason: str) -> None:
        if not warned:
            warned.append(reason)
            ports.record(
                Warned(
                    code="INITIAL",
                    message="Waiting for the run's initial weights: no connected peer has given"
                    f" them ({reason}).",
                )
            )

    return await obtain_initial(
        run=context.run,
        state=bytes.fromhex(manifest.initial),
        parameters=info.parameters,
        weights=context.initial,
        network=ports.network,
        offload=ports.offload,
        refuse=ports.refuse,
        wait=wait,
    )
