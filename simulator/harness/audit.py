"""The audit: computes every certificate's state again, from only what the certificate lists.

The harness knows the content of each member's stretches (`content`), and hears which stretches went
into which offer. From the first certificate on it follows every ledger and every state by itself. A
certificate is exact when:

* each listed contribution is, by the Merkle root that its contributor signed, bit for bit what the
  contributor's stretches make,
* the state that it names is, bit for bit, the outer step from its parent's state with the weighted
  mean of those contributions, and
* that state is, within float32 rounding, the one that float64 arithmetic makes of the stretches
  themselves, without ledger, codec or reduction.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from daemon.swarm.ancestry import LineageEntry
from daemon.swarm.lineage import Lineage
from protocol.averaging.outer_step import outer_step, state_digest
from protocol.averaging.vector_layout import Vector, chunk_count
from protocol.certificates.merge import merge_vectors
from protocol.codec import codec_named
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Outer, SignedManifest
from protocol.run.schedule import outer_at
from simulator.certified_mean import certified_mean
from simulator.harness.content import task_info, vector_of
from simulator.harness.shadow_ledger import ShadowLedger, ShadowOffer
from simulator.harness.wire import (
    AnyLine,
    Certified,
    Entered,
    MemberUp,
    Offered,
    Resumed,
    StretchCollected,
)

# States of recent certificates: a later one may branch off any of them.
STATES_KEPT = 8
# Offers kept of each member. A certificate lists the newest, or in a branch the one before.
OFFERS_KEPT = 4
# Relative to the largest value. Four float32 additions, a division and the outer step stay below
# 2^-19.
ROUNDING = 1e-5

State = tuple[Vector, Vector]


class Audit:
    """Follows the lines of all members, those of one member in order.

    `findings` has a sentence for each certificate; it is empty when the certificate is exact.
    """

    def __init__(self, signed: SignedManifest, elements: int) -> None:
        self.findings: dict[str, str] = {}
        self.steps: dict[str, LineageEntry] = {}
        self._signed, self._elements = signed, elements
        self._manifest = signed.open()
        self._codec = codec_named(self._manifest.codec)
        self._lineage = Lineage(signed.run, self._manifest, chunk_count(elements))
        self._shadows: dict[int, ShadowLedger] = {}
        self._offers: dict[PeerId, OrderedDict[int, ShadowOffer]] = {}
        self._waiting: OrderedDict[Digest, LineageEntry] = OrderedDict()
        genesis = initial_parameters(task_info(elements).specs, self._manifest.seed)
        self._states: OrderedDict[Digest, State] = OrderedDict(
            {signed.run: (genesis, np.zeros_like(genesis))}
        )

    def receive(self, member: int, line: AnyLine) -> None:
        """Handle one line. Certificates whose contributions are then known are audited at once."""
        shadow = self._shadows.get(member)
        if shadow is None:
            shadow = self._shadows[member] = ShadowLedger(member, self._signed, self._elements)
        match line:
            case MemberUp(peer=peer):
                shadow.peer = peer
            case Resumed():
                shadow.resumed(line)
            case StretchCollected():
                shadow.collected(line)
            case Entered(phase="scatter"):
                shadow.gave_out()
            case Offered():
                made = shadow.offered(line)
                if made is not None:
                    kept = self._offers.setdefault(shadow.peer, OrderedDict())
                    kept[line.seq] = made
                    while len(kept) > OFFERS_KEPT:
                        kept.popitem(last=False)
                self._look()
            case Certified():
                self._learn(line)
                step = self.steps.get(line.hash)
                if step is None:
                    shadow.doubts.append(
                        f"it adopted certificate {line.number}, which does not verify"
                    )
                else:
                    self._settle(shadow, step, last=bool(line.state))
                self._look()
            case _:
                pass

    def _settle(self, shadow: ShadowLedger, step: LineageEntry, *, last: bool) -> None:
        """Settle a certificate as the native engine's ledger store does along a path."""
        certificate, before = step.certificate, self._lineage.tip(shadow.tip)
        founded = certificate.outcome.number == 1 and shadow.peer in certificate.plan.index
        shadow.certified(
            certificate.listed.get(shadow.peer),
            beside=not last and before is not None and not self._lineage.descends(step.tip, before),
            rounds=certificate.rounds,
            forgets=not shadow.on_its_way and shadow.tip == self._signed.run and not founded,
        )
        shadow.on_its_way = not last
        if last:
            shadow.arrived(step.tip.hash)

    @property
    def doubts(self) -> list[str]:
        """Where a member's ledger was not what its own lines make it.

        The member's contributions are then not what they should be either.
        """
        return [
            f"member {member}: {doubt}"
            for member, shadow in self._shadows.items()
            for doubt in shadow.doubts
        ]

    def finish(self) -> None:
        """Close the audit: a certificate that could not be audited so far is not exact."""
        for name, step in self._waiting.items():
            known = all(parent in self._states for parent in step.certificate.outcome.parents)
            missing = ", ".join(
                f"{short(peer)} seq {seq}"
                for peer, seq in step.certificate.listed.items()
                if not self._offer(peer, seq)
            )
            self.findings[name.hex()] = (
                f"it lists what was never offered: {missing}"
                if known
                else "its parent's state is not known"
            )
        self._waiting.clear()

    def _learn(self, line: Certified) -> None:
        if line.hash in self.steps:
            return
        try:
            added = self._lineage.add(line.raw)
        except PeerFault as fault:
            self.findings[line.hash] = f"it does not verify: {fault}"
            return
        for step in added:
            self.steps[step.tip.hash.hex()] = step
            self._waiting[step.tip.hash] = step

    def _offer(self, peer: PeerId, seq: int) -> ShadowOffer | None:
        offers = self._offers.get(peer)
        return offers.get(seq) if offers is not None else None

    def _look(self) -> None:
        progress = True
        while progress:
            progress = False
            for name, step in list(self._waiting.items()):
                certificate = step.certificate
                known = all(parent in self._states for parent in certificate.outcome.parents)
                if known and all(
                    self._offer(peer, seq) for peer, seq in certificate.listed.items()
                ):
                    self.findings[name.hex()] = self._examine(step)
                    del self._waiting[name]
                    progress = True

    def _examine(self, step: LineageEntry) -> str:
        certificate = step.certificate
        outcome = certificate.outcome
        before = self._states[outcome.parents[0]]
        after = (np.empty(self._elements, np.float32), np.empty(self._elements, np.float32))
        if len(outcome.parents) == 2:
            other = self._states[outcome.parents[1]]
            tips = [self._lineage.tip(parent) for parent in outcome.parents]
            assert tips[0] is not None
            assert tips[1] is not None
            weights = self._lineage.weights(tips[0], tips[1])
            for one, two, out in zip(before, other, after, strict=True):
                merge_vectors(one, two, weights, out)
            wrong = ""
        else:
            offers = [
                (i, self._offer(certificate.plan.members[i], certificate.plan.offers[i].seq))
                for i in certificate.contributors
            ]
            made = [(certificate.plan.offers[i], offer) for i, offer in offers if offer is not None]
            wrong = "; ".join(
                f"the contribution of member {offer.member} is not what its stretches make"
                for ready, offer in made
                if (ready.contribution, ready.samples) != (offer.contribution, offer.samples)
            )
            parts = {i: offer.encoded for i, offer in offers if offer is not None}
            mean = certified_mean(certificate, parts, self._codec, self._elements)
            outer = outer_at(self._manifest, step.tip.samples - certificate.samples)
            outer_step(*before, mean.value, outer, *after, rounds=certificate.rounds)
            if mean.plain:
                wrong = wrong or self._apart(
                    [offer for _, offer in made], certificate.rounds, outer, before, after
                )
        self._states[certificate.hash] = after
        while len(self._states) > STATES_KEPT:
            self._states.popitem(last=False)
        if state_digest(*after) != outcome.state:
            wrong = wrong or (
                f"its state is not that of the {len(certificate.contributors)} "
                "contributions it lists"
            )
        return wrong

    def _apart(
        self,
        offers: list[ShadowOffer],
        rounds: float,
        outer: Outer,
        before: State,
        after: State,
    ) -> str:
        """How far the anchor is from what float64 makes of the stretches; empty within rounding."""
        mean: npt.NDArray[np.float64] = np.zeros(self._elements)
        counted = sum(offer.samples for offer in offers)
        walks = [(offer.member, walk) for offer in offers for walk in offer.walks]
        for member, walk in walks:
            # Steps along a trajectory add up, with the weight of all of them.
            for part in walk.stretches:
                moved = vector_of(
                    self._manifest.seed, member, part.life, part.stretch, self._elements
                ).astype(np.float64)
                mean += walk.factor * walk.samples * moved
        total = sum(walk.factor * walk.samples for _, walk in walks)
        # Half of an odd number is rounded down.
        if abs(total - counted) > sum(walk.factor < 1 for _, walk in walks):
            return f"{total} samples were handed over, {counted} are counted"
        mean /= counted
        mu, rate = outer.momentum, outer.learning_rate
        momentum = mu * before[1].astype(np.float64) + mean / rounds
        anchor = (
            before[0].astype(np.float64)
            - rate * (mean / rounds + mu * momentum)
            - mean * (1 - 1 / rounds)
        )
        worst = float(np.abs(anchor - after[0]).max())
        scale = max(1.0, float(np.abs(before[0]).max()), float(np.abs(before[1]).max()))
        return (
            f"its anchor is {worst:g} from the exact mean, at values up to {scale:g}"
            if worst > ROUNDING * scale
            else ""
        )
