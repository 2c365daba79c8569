"""Builds a node's part in being paid: its payee, and the feed of certified rounds."""

from __future__ import annotations

from msgspec import UNSET

from daemon.chain.certified_feed import CertifiedFeed
from daemon.chain.payee import Payee
from daemon.node.node_parts import NodeParts
from daemon.system.offload import in_thread
from protocol.identity import PeerId
from protocol.messages.offer import Binding
from protocol.ports.disk import Disk
from protocol.ports.network import Network
from protocol.run.admission import falls_short
from protocol.run.manifest import SignedManifest


class NodeChain:
    """One node's payee, and what of its rounds is certified. Made before the network starts."""

    def __init__(self, node: NodeParts, signed: SignedManifest, disk: Disk) -> None:
        self._manifest, self._journal = signed.open(), node.journal
        admission = self._manifest.admission
        self._registered_only = admission is not UNSET and admission.policy == "registered"
        self._payee = Payee(
            home=node.config.home,
            settings=node.config.chain,
            oracle=node.config.oracle,
            signed=signed,
            peer=node.signer.peer,
            name=node.config.node.name,
            password=node.password,
            record=node.journal.record,
        )
        self.feed = CertifiedFeed(
            disk,
            signed,
            in_thread,
            node.journal.record,
            (self._payee.figures.add, node.journal.certified),
            self._payee.figures.begin_anew,
        )

    async def prepare(self) -> Binding | None:
        """Unlock the wallet, and return the binding for the node's offers. Takes two seconds."""
        return await in_thread(self._payee.prepare)

    def register(self, network: Network) -> None:
        """Register the protocols of payment, before the network starts."""
        self._payee.serve(network, in_thread)

    def exclusion_reason(self, peer: PeerId) -> str:
        """Return why the run's admission policy excludes a peer; "" where it does not."""
        shortfall = falls_short(self._manifest, peer, self._journal.reputation(peer))
        return shortfall or (self._payee.left_out(peer) if self._registered_only else "")

    async def run(self, network: Network) -> None:
        """Send heartbeats and claims until cancelled. Training never waits for the chain."""
        await self._payee.run(network, self.feed.caught_up, in_thread)
