"""Defines the two halves of the engine: what talks with peers, and what works on the model."""

from __future__ import annotations

import msgspec

from daemon.services.training.native.audit.auditor import Auditor
from daemon.services.training.native.audit.fraud_proofs import FraudProofs
from daemon.services.training.native.exchange.data_plane import DataPlane
from daemon.services.training.native.rounds.message_translator import MessageTranslator
from daemon.services.training.native.state.downloads import Downloads
from daemon.services.training.native.state.fork_choice import ForkChoice
from daemon.services.training.native.state.state_store import StateStore
from daemon.services.training.native.state.state_sync import StateSync
from daemon.services.training.native.training.trainer_link import TrainerLink
from daemon.swarm.follower import Follower
from daemon.swarm.lineage import Lineage
from daemon.swarm.members import Members
from daemon.swarm.messenger import Messenger
from daemon.swarm.state_transfer import StateServer


class PeerParts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that talk with peers. They exist before the network starts."""

    lineage: Lineage
    members: Members
    messenger: Messenger
    follower: Follower
    translator: MessageTranslator
    data_plane: DataPlane
    auditor: Auditor
    fraud_proofs: FraudProofs
    state_server: StateServer


class ModelParts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts that work on the model. They exist once the trainer has described the model."""

    state_store: StateStore
    downloads: Downloads
    fork_choice: ForkChoice
    trainer_link: TrainerLink
    state_sync: StateSync
