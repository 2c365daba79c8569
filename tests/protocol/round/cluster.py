"""A test cluster: pure round machines with real signers, and a wire between them.

A test may reorder, hold, duplicate and lose packets. Nothing runs by itself: the test delivers
packets, finishes work and lets deadlines pass, in any order.
"""

from __future__ import annotations

import math

import msgspec

from daemon.swarm.lineage import Lineage
from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.merge import merge_round
from protocol.digest import Digest, digest
from protocol.identity import PeerId, Signer
from protocol.messages.base import Signed
from protocol.planning.plan import OpenPlan, open_plan
from protocol.round import events as e
from protocol.run.manifest import Group, Manifest, seal
from tests.protocol.round.node import CHUNKS, Content, TestNode
from tests.protocol.rounds import Made


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """Content on its way to a node."""

    sender: PeerId
    to: PeerId
    content: Content


class TestCluster:
    """The nodes, the wire between them, and checks of what must always hold."""

    # Without this, pytest collects Test* as test cases.
    __test__ = False

    def __init__(
        self, size: int, *, settled: int = 0, max_group: int = 32, min_peers: int = 2, seed: int = 0
    ) -> None:
        """Start a cluster of `size` nodes.

        Args:
            size: the number of nodes.
            settled: how many of them made a first certificate before; 0 starts at genesis.
            max_group: the run's largest group.
            min_peers: the run's fewest members.
            seed: another seed is another run.
        """
        self.manifest = Manifest(
            name="cluster",
            task="nothing",
            seed=seed,
            group=Group(min_peers=min_peers, max_group=max_group),
        )
        self.run_id = seal(self.manifest).run
        self.now = 0.0
        self.wire: list[Packet] = []
        # Packets that the test withholds.
        self.withheld: list[Packet] = []
        # The nodes on one side of a partition; empty without a partition.
        self.partition: frozenset[PeerId] = frozenset()
        self.downloads_that_fail = 0
        # The nodes that gossiped a certificate, in order.
        self.gossiped: list[PeerId] = []
        self.refused: list[tuple[PeerId, PeerId, str, str]] = []
        self.certificates: dict[tuple[Digest, int], Digest] = {}
        self._opened: dict[tuple[Digest, PeerId], OpenPlan] = {}
        signers = sorted(
            (Signer(digest(b"node", bytes([i]))) for i in range(size)),
            key=lambda signer: signer.peer,
        )
        first = b""
        if settled:
            first = Made(
                signers[:settled], run=self.run_id, manifest=self.manifest, chunks=CHUNKS
            ).raw()
        self.nodes: list[TestNode] = []
        for signer in signers:
            lineage = Lineage(self.run_id, self.manifest, CHUNKS)
            if first:
                lineage.add(first)
            self.nodes.append(TestNode(self, signer, lineage))
            self.nodes[-1].seq = 1
        for node in self.nodes:
            node.update_live()
            node.run()

    def alive(self) -> list[TestNode]:
        return [node for node in self.nodes if node.alive]

    def holds(self, name: Digest, but: TestNode) -> bool:
        """Whether a node that `but` can reach serves the anchor of `name`."""
        return any(
            name in other.kept
            for other in self.alive()
            if other is not but and not self.is_partitioned(other.me, but.me)
        )

    def named(self, peer: PeerId) -> TestNode:
        return next(node for node in self.nodes if node.me == peer)

    def downloads(self, name: Digest, node: TestNode) -> bool:
        """Whether an attempt to get an anchor succeeds."""
        if self.downloads_that_fail:
            self.downloads_that_fail -= 1
            return False
        return self.holds(name, node)

    def is_partitioned(self, one: PeerId, other: PeerId) -> bool:
        return (one in self.partition) != (other in self.partition)

    def set_partition(self, side: frozenset[PeerId]) -> None:
        """Set or end a partition: connections across it break, packets across it are lost."""
        self.partition = side
        self.wire = [
            packet for packet in self.wire if not self.is_partitioned(packet.sender, packet.to)
        ]
        for node in self.alive():
            node.lost = {other.me for other in self.nodes if self.is_partitioned(other.me, node.me)}
            for peer in sorted(node.lost):
                node.inbox.append(e.PeerLost(peer=peer))
            node.update_live()
            node.run()

    def restart(self, node: TestNode) -> None:
        """Restart a node: the others' connections to it break and are made again."""
        others = [
            other
            for other in self.alive()
            if other is not node and not self.is_partitioned(other.me, node.me)
        ]
        for other in others:
            other.lose(node.me)
            other.run()
        node.restart()
        for other in others:
            other.lost.discard(node.me)
            other.update_live()
            other.run()

    def can_spare(self, node: TestNode) -> bool:
        """Whether another node holds every anchor that this one may be asked for."""
        heads = [node.state.tip, node.tip, *node.lineage.other_branches(node.state.tip)]
        ahead = node.lineage.preferred_descendant(node.state.tip)
        return all(self.holds(tip.hash, node) for tip in [*heads, *([ahead] if ahead else [])])

    def send(self, sender: PeerId, to: PeerId, content: Content) -> None:
        if not self.is_partitioned(sender, to):
            self.wire.append(Packet(sender=sender, to=to, content=content))

    def deliver(self, packet: Packet, *, run: bool = True) -> None:
        node = self.named(packet.to)
        if node.alive:
            node.receive(packet.content)
            if run:
                node.run()

    def checked_plan(self, signed: Signed) -> OpenPlan:
        """Check a plan once for all nodes; an honest leader's plan is never refused."""
        # At genesis two leaders can make the same plan.
        key = (signed.digest, signed.peer)
        if key not in self._opened:
            self._opened[key] = open_plan(signed, self.run_id, self.manifest, CHUNKS)
        return self._opened[key]

    def send_chain(self, node: TestNode, peer: PeerId) -> None:
        """Send the chain of `peer` to a node that asked for it."""
        other = self.named(peer)
        for certificate in (
            other.lineage.path(other.lineage.root, other.state.tip)
            if not self.is_partitioned(peer, node.me)
            else ()
        ):
            self.send(peer, node.me, certificate.raw)

    def check_certificate(self, raw: bytes) -> None:
        """Check that a certificate verifies, is unique in its view, and has its state on a node."""
        certificate = open_certificate(raw, self.run_id, self.manifest, CHUNKS)
        key = (merge_round(certificate.outcome.parents), certificate.outcome.view)
        first = self.certificates.setdefault(key, certificate.hash)
        assert first == certificate.hash or not self.one_leader(certificate), (
            f"two certificates of view {key[1]}"
        )
        holders = [
            v
            for v in self.nodes
            if v.spare == certificate.outcome.state or certificate.hash in v.kept
        ]
        assert holders, "no node has the state of a certificate"

    def one_leader(self, certificate: OpenCertificate) -> bool:
        """Whether all nodes agree on the leader of the certificate's view.

        Newcomers lead the views after those of the candidates, and each node knows other newcomers.
        Nodes merge the certificates that such leaders make.
        """
        tips = [
            node.lineage.tip(parent)
            for parent in certificate.outcome.parents
            for node in self.nodes
        ]
        members = {peer for tip in tips if tip is not None for peer in tip.members}
        return certificate.outcome.view < len(members) or len(members) == len(self.nodes)

    def flow(self, limit: int = 100_000) -> None:
        """Deliver packets and finish work, in order, until only a deadline can cause an event."""
        while limit:
            busy = [node for node in self.alive() if node.inbox or node.work]
            if not self.wire and not busy:
                return
            for node in busy:
                node.run()
                if node.work:
                    node.finish()
                    node.run()
            for packet in self.wire[:limit] if limit < len(self.wire) else list(self.wire):
                self.wire.remove(packet)
                self.deliver(packet)
                limit -= 1

    def pass_deadline(self, node: TestNode) -> None:
        """Let a node's deadline pass, after it has handled its inbox."""
        node.run()
        if node.alive and node.state.deadline < math.inf:
            self.now = max(self.now, node.state.deadline)
            node.see(e.DeadlinePassed())
            node.run()

    def pass_next_deadline(self) -> None:
        """Let the earliest deadline pass."""
        waiting = [node for node in self.alive() if node.state.deadline < math.inf]
        assert waiting, f"no event can follow: {[node.state.phase.value for node in self.alive()]}"
        self.pass_deadline(min(waiting, key=lambda node: (node.state.deadline, node.me)))

    def catch_up(self) -> None:
        """Let beacons reach all nodes, and nodes that are behind catch up."""
        for node in self.alive():
            for other in self.nodes:
                if not other.alive and other.me not in node.lost:
                    node.lose(other.me)
                elif other.alive:
                    node.lost.discard(other.me)
            for other in self.alive():
                for certificate in other.lineage.path(node.lineage.root, other.state.tip):
                    if node.lineage.entry(certificate.hash) is None:
                        node.learn(certificate.raw)
            node.update_live()
            node.run()
