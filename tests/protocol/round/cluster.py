"""A cluster: a few pure round machines with real signers, and a wire between them that a test may
reorder, cut, double and lose.

Nothing runs by itself: the test carries packets, finishes work and lets deadlines pass, in whatever
order it likes.
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
    """Content on its way."""

    sender: PeerId
    to: PeerId
    content: Content


class TestCluster:
    """Everybody, the wire between them, and what must always hold."""

    def __init__(
        self, size: int, *, settled: int = 0, max_group: int = 32, min_peers: int = 2, seed: int = 0
    ) -> None:
        """`settled` of them made a first certificate before the story begins; with 0 it begins at
        genesis.

        Another `seed` is another run.
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
        self.held: list[Packet] = []  # kept back, for as long as the test likes
        self.partition: frozenset[PeerId] = frozenset()  # one side of a partition
        self.downloads_that_fail = 0
        self.gossiped: list[PeerId] = []  # who told everybody of a certificate
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
        """Whether somebody whom `but` can reach gives the anchor of `name`."""
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
        """A partition, or its end: connections across it break and packets across it are lost."""
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
        """A node dies and comes back at once: the others' connections to it broke, and there are
        new ones.
        """
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
        """Whether every anchor this one may be asked for is held by somebody else: what only a dead
        node held cannot come back.
        """
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
        """A plan, checked once for everybody. An honest leader's plan is never refused."""
        # At genesis two leaders can make the same plan.
        key = (signed.digest, signed.peer)
        if key not in self._opened:
            self._opened[key] = open_plan(signed, self.run_id, self.manifest, CHUNKS)
        return self._opened[key]

    def send_chain(self, node: TestNode, peer: PeerId) -> None:
        """The chain of `peer` comes by post."""
        other = self.named(peer)
        for certificate in (
            other.lineage.path(other.lineage.root, other.state.tip)
            if not self.is_partitioned(peer, node.me)
            else ()
        ):
            self.send(peer, node.me, certificate.raw)

    def check_certificate(self, raw: bytes) -> None:
        """It verifies, there is one for each parent and view, and its state exists somewhere."""
        certificate = open_certificate(raw, self.run_id, self.manifest, CHUNKS)
        key = (merge_round(certificate.outcome.parents), certificate.outcome.view)
        first = self.certificates.setdefault(key, certificate.hash)
        assert first == certificate.hash or not self.one_leader(certificate), (
            f"two certificates of view {key[1]}"
        )
        held = [
            v
            for v in self.nodes
            if v.spare == certificate.outcome.state or certificate.hash in v.kept
        ]
        assert held, "a certificate whose state nobody holds"

    def one_leader(self, certificate: OpenCertificate) -> bool:
        """Whether everybody takes the same node for the leader of its view: beyond the candidates'
        own views newcomers lead, those whom each knows.

        What is certified apart there is merged.
        """
        tips = [
            node.lineage.tip(parent)
            for parent in certificate.outcome.parents
            for node in self.nodes
        ]
        members = {peer for tip in tips if tip is not None for peer in tip.members}
        return certificate.outcome.view < len(members) or len(members) == len(self.nodes)

    # -------------------------------------------------------------------------------------------- the passing of time

    def flow(self, limit: int = 100_000) -> None:
        """Everything that needs no deadline happens, in the order in which it was begun."""
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
        """A deadline passes. Whoever has something in the inbox sees that first."""
        node.run()
        if node.alive and node.state.deadline < math.inf:
            self.now = max(self.now, node.state.deadline)
            node.see(e.DeadlinePassed())
            node.run()

    def pass_next_deadline(self) -> None:
        """The earliest deadline passes."""
        waiting = [node for node in self.alive() if node.state.deadline < math.inf]
        assert waiting, (
            f"nothing will ever happen again: {[node.state.phase.value for node in self.alive()]}"
        )
        self.pass_deadline(min(waiting, key=lambda node: (node.state.deadline, node.me)))

    def catch_up(self) -> None:
        """Beacons reach everybody, and whoever is behind asks."""
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
