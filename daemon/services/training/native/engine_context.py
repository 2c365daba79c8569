"""What every part of the engine receives: the run, the node's identity, and the ports."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from daemon.swarm.initial_transfer import InitialWeights
from protocol.digest import Digest
from protocol.evaluation.budget import EVALUATION_SHARE
from protocol.identity import PeerId, Signer
from protocol.journal import InputRefused, JournalEvent
from protocol.membership.invitation import OwnInvitation
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.offer import Binding
from protocol.ports.disk import Disk
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.run.manifest import Manifest, SignedManifest

# The time between full states. A state with its ledger has about 26 bytes a parameter. In rounds of
# 5 s this is less than half a byte a parameter and round, about as much as the results at int4, and
# a restart replays 60 rounds, a second or two of work.
FULL_STATE_S = 300.0
# The same for a node that certifies nothing: no other node holds its work, so a crash costs all
# that it trained since. For a model of 5 million parameters this writes 16 GB an hour.
ALONE_STATE_S = 30.0


class DiskRules(msgspec.Struct, frozen=True, kw_only=True):
    """How often a node writes its full state, and how much it may write."""

    full_state_s: float = FULL_STATE_S
    # The most bytes in an hour; 0 means no limit.
    hourly_bytes: int = 0


class EngineContext(msgspec.Struct, frozen=True, kw_only=True):
    """The run that a node takes part in, and the identity of the node."""

    signed: SignedManifest
    manifest: Manifest
    signer: Signer
    # Names the wallet that is paid for this node's offers.
    binding: Binding | None = None
    disk: DiskRules = DiskRules()
    # The share of the time that scoring anchors may take.
    evaluation_share: float = EVALUATION_SHARE
    # The weights with which the run begins, on this node's disk.
    initial: InitialWeights | None = None
    # The proof that the run's owner invited this node, which its offers carry until a certificate
    # admits it.
    invitation: OwnInvitation = OwnInvitation()
    # What the run's owner signed since the run began; None makes an empty set.
    owner_records: OwnerRecords | None = None
    # Reads the beginning of the hash of the certificate that this node's owner wants to follow.
    followed: Callable[[], str] = lambda: ""

    @property
    def run(self) -> Digest:
        """The digest that names the run."""
        return self.signed.run

    @property
    def me(self) -> PeerId:
        """The peer id of this node."""
        return self.signer.peer


def engine_context(
    signed: SignedManifest,
    signer: Signer,
    binding: Binding | None = None,
    disk: DiskRules | None = None,
    evaluation_share: float = EVALUATION_SHARE,
    initial: InitialWeights | None = None,
    *,
    invitation: OwnInvitation | None = None,
    owner_records: OwnerRecords | None = None,
    followed: Callable[[], str] = lambda: "",
) -> EngineContext:
    """Return the context of a node in the run of a verified manifest."""
    return EngineContext(
        signed=signed,
        manifest=signed.open(),
        signer=signer,
        binding=binding,
        disk=disk or DiskRules(),
        evaluation_share=evaluation_share,
        initial=initial,
        invitation=invitation or OwnInvitation(),
        owner_records=owner_records,
        followed=followed,
    )


class NodePorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of a node: the network, the disk, a thread for long work, and the journal."""

    network: Network
    disk: Disk
    offload: Offload
    record: Callable[[JournalEvent], None]
    # The time of day, in seconds.
    wall_clock_s: Callable[[], float] = time.time

    def refuse(self, reason: str, peer: PeerId, detail: str) -> None:
        """Record that a peer's input was refused."""
        self.record(InputRefused(reason=reason, peer=peer, detail=detail))
