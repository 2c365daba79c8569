"""A village: a few pure round machines with real signers, and a wire between them that a test may
reorder, cut, double and lose.

Nothing runs by itself: the test carries letters, finishes work and lets deadlines pass, in whatever
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
from tests.protocol.round.villager import CHUNKS, Content, Villager
from tests.protocol.rounds import Made


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """Content on its way."""

    sender: PeerId
    to: PeerId
    content: Content


class Village:
    """Everybody, the wire between them, and what must always hold."""

    def __init__(
        self, size: int, *, settled: int = 0, max_group: int = 32, min_peers: int = 2, seed: int = 0
    ) -> None:
        """`settled` of them made a first certificate before the story begins; with 0 it begins at
        genesis.

        Another `seed` is another run.
        """
        self.manifest = Manifest(
            name="village",
            task="nothing",
            seed=seed,
            group=Group(min_peers=min_peers, max_group=max_group),
        )
        self.run_id = seal(self.manifest).run
        self.now = 0.0
        self.wire: list[Letter] = []
        self.held: list[Letter] = []  # kept back, for as long as the test likes
        self.apart: frozenset[PeerId] = frozenset()  # one side of a partition
        self.downloads_that_fail = 0
        self.gossiped: list[PeerId] = []  # who told everybody of a certificate
        self.refused: list[tuple[PeerId, PeerId, str, str]] = []
        self.certificates: dict[tuple[Digest, int], Digest] = {}
        self._opened: dict[tuple[Digest, PeerId], OpenPlan] = {}
        signers = sorted(
            (Signer(digest(b"villager", bytes([i]))) for i in range(size)),
            key=lambda signer: signer.peer,
        )
        first = b""
        if settled:
            first = Made(
                signers[:settled], run=self.run_id, manifest=self.manifest, chunks=CHUNKS
            ).raw()
        self.villagers: list[Villager] = []
        for signer in signers:
            lineage = Lineage(self.run_id, self.manifest, CHUNKS)
            if first:
                lineage.add(first)
            self.villagers.append(Villager(self, signer, lineage))
            self.villagers[-1].seq = 1
        for villager in self.villagers:
            villager.hear_beacons()
            villager.run()

    def alive(self) -> list[Villager]:
        return [villager for villager in self.villagers if villager.alive]

    def holds(self, name: Digest, but: Villager) -> bool:
        """Whether somebody whom `but` can reach gives the anchor of `name`."""
        return any(
            name in other.kept
            for other in self.alive()
            if other is not but and not self.parted(other.me, but.me)
        )

    def named(self, peer: PeerId) -> Villager:
        return next(villager for villager in self.villagers if villager.me == peer)

    def downloads(self, name: Digest, villager: Villager) -> bool:
        """Whether an attempt to get an anchor succeeds."""
        if self.downloads_that_fail:
            self.downloads_that_fail -= 1
            return False
        return self.holds(name, villager)

    def parted(self, one: PeerId, other: PeerId) -> bool:
        return (one in self.apart) != (other in self.apart)

    def part(self, side: frozenset[PeerId]) -> None:
        """A partition, or its end: connections across it break and letters across it are lost."""
        self.apart = side
        self.wire = [letter for letter in self.wire if not self.parted(letter.sender, letter.to)]
        for villager in self.alive():
            villager.lost = {
                other.me for other in self.villagers if self.parted(other.me, villager.me)
            }
            for peer in sorted(villager.lost):
                villager.inbox.append(e.PeerLost(peer=peer))
            villager.hear_beacons()
            villager.run()

    def restart(self, villager: Villager) -> None:
        """A node dies and comes back at once: the others' connections to it broke, and there are
        new ones.
        """
        others = [
            other
            for other in self.alive()
            if other is not villager and not self.parted(other.me, villager.me)
        ]
        for other in others:
            other.lose(villager.me)
            other.run()
        villager.restart()
        for other in others:
            other.lost.discard(villager.me)
            other.hear_beacons()
            other.run()

    def can_spare(self, villager: Villager) -> bool:
        """Whether every anchor this one may be asked for is held by somebody else: what only a dead
        node held cannot come back.
        """
        heads = [
            villager.state.tip,
            villager.tip,
            *villager.lineage.other_branches(villager.state.tip),
        ]
        ahead = villager.lineage.preferred_descendant(villager.state.tip)
        return all(self.holds(tip.hash, villager) for tip in [*heads, *([ahead] if ahead else [])])

    def post(self, sender: PeerId, to: PeerId, content: Content) -> None:
        if not self.parted(sender, to):
            self.wire.append(Letter(sender=sender, to=to, content=content))

    def deliver(self, letter: Letter, *, run: bool = True) -> None:
        villager = self.named(letter.to)
        if villager.alive:
            villager.receive(letter.content)
            if run:
                villager.run()

    def opened(self, signed: Signed) -> OpenPlan:
        """A plan, checked once for everybody. An honest leader's plan is never refused."""
        # At genesis two leaders can make the same plan.
        key = (signed.digest, signed.peer)
        if key not in self._opened:
            self._opened[key] = open_plan(signed, self.run_id, self.manifest, CHUNKS)
        return self._opened[key]

    def inquire(self, villager: Villager, peer: PeerId) -> None:
        """The chain of `peer` comes by post."""
        other = self.named(peer)
        for certificate in (
            other.lineage.path(other.lineage.root, other.state.tip)
            if not self.parted(peer, villager.me)
            else ()
        ):
            self.post(peer, villager.me, certificate.raw)

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
            for v in self.villagers
            if v.spare == certificate.outcome.state or certificate.hash in v.kept
        ]
        assert held, "a certificate whose state nobody holds"

    def one_leader(self, certificate: OpenCertificate) -> bool:
        """Whether everybody takes the same node for the leader of its view: beyond the candidates'
        own views newcomers lead, those whom each knows.

        What is certified apart there is merged.
        """
        tips = [
            villager.lineage.tip(parent)
            for parent in certificate.outcome.parents
            for villager in self.villagers
        ]
        members = {peer for tip in tips if tip is not None for peer in tip.members}
        return certificate.outcome.view < len(members) or len(members) == len(self.villagers)

    # -------------------------------------------------------------------------------------------- the passing of time

    def flow(self, limit: int = 100_000) -> None:
        """Everything that needs no deadline happens, in the order in which it was begun."""
        while limit:
            busy = [villager for villager in self.alive() if villager.inbox or villager.work]
            if not self.wire and not busy:
                return
            for villager in busy:
                villager.run()
                if villager.work:
                    villager.finish()
                    villager.run()
            for letter in self.wire[:limit] if limit < len(self.wire) else list(self.wire):
                self.wire.remove(letter)
                self.deliver(letter)
                limit -= 1

    def tick(self, villager: Villager) -> None:
        """A deadline passes. Whoever has something in the inbox sees that first."""
        villager.run()
        if villager.alive and villager.state.deadline < math.inf:
            self.now = max(self.now, villager.state.deadline)
            villager.see(e.DeadlinePassed())
            villager.run()

    def tick_next(self) -> None:
        """The earliest deadline passes."""
        waiting = [villager for villager in self.alive() if villager.state.deadline < math.inf]
        assert waiting, (
            f"nothing will ever happen again: {[villager.state.phase.value for villager in self.alive()]}"
        )
        self.tick(min(waiting, key=lambda villager: (villager.state.deadline, villager.me)))

    def catch_up(self) -> None:
        """Beacons reach everybody, and whoever is behind asks."""
        for villager in self.alive():
            for other in self.villagers:
                if not other.alive and other.me not in villager.lost:
                    villager.lose(other.me)
                elif other.alive:
                    villager.lost.discard(other.me)
            for other in self.alive():
                for certificate in other.lineage.path(villager.lineage.root, other.state.tip):
                    if villager.lineage.entry(certificate.hash) is None:
                        villager.learn(certificate.raw)
            villager.hear_beacons()
            villager.run()
