"""What must always hold in a world.

It is checked when a node moves to a certificate, makes an offer or enters a phase:

agreement      Nodes that hold the same certificate hold identical anchors.
nothing lost   What a node was certified for, what its ledger holds and what it reported as dropped
               add up to what its trainer handed over.
nothing twice  No (peer, seq) appears twice in one ancestry, except where a merge joins branches.
one voice      A node scatters once and votes once in each view, in all its lives together.
content        The state of a certificate follows from its parent and exactly the offers that it
               lists (`simulator/world/contents.py`).
bounds         What a node keeps of others stays within its stated limits.
one record     Nodes that hold the same certificate hold one membership record (rules 4).
no vote, no certificate
               No honest node stands on a certificate that no voter of its parent's record signed
               (rules 4).
progress       After the last fault every live node moves on in time, along one lineage
               (`simulator/playback/player.py` decides when to look).
no crash       Nothing that happens raises out of a node.
"""

from __future__ import annotations

import traceback

import msgspec

from daemon.services.training.native.rounds.event_queue import QUEUE_FULL
from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.certificate_shares import TIPS_KEPT
from daemon.swarm.orphans import ORPHANS_KEPT
from protocol.averaging.outer_step import state_digest
from protocol.certificates.tip import Tip
from protocol.contribution.offer import Offer
from protocol.digest import Digest
from protocol.identity import short
from protocol.round.phase import Phase
from protocol.round.transitions import PEERS_KEPT
from protocol.round.vote_phase import OUTCOMES_KEPT
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest
from protocol.run.schedule import outer_at
from simulator.fakes.disk import KEPT
from simulator.faults.lies import LIES
from simulator.world.accounts import accounted as accounted_for
from simulator.world.accounts import certified
from simulator.world.contents import Absorption, Contents
from simulator.world.simulated_node import SimulatedNode

NAMES = (
    "agreement",
    "nothing lost",
    "nothing twice",
    "one voice",
    "content",
    "bounds",
    "one record",
    "no vote, no certificate",
    "progress",
    "no crash",
)
# Lines of a crash's traceback that are reported.
TRACE_LINES = 6
# Each stream that waits to deliver may add one event.
INBOX_SLACK = 256


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """An invariant that did not hold: which, when, and the sentence with its numbers."""

    invariant: str
    at_s: float
    what: str


class Invariants:
    """The checker of one world. `broken` is empty as long as every invariant holds."""

    def __init__(self, manifest: Manifest) -> None:
        self.broken: list[Violation] = []
        # The lie of each Byzantine node, by its index.
        self.liars: dict[int, str] = {}
        # Certificates whose content does not follow from their offers, by a reducer's lie that
        # nobody can detect.
        self.unnoticed = 0
        self._manifest = manifest
        self.contents = Contents(manifest)
        self._min_peers = manifest.group.min_peers
        self._states: dict[Digest, Digest] = {}
        # By tip: the digest of its membership record.
        self._records: dict[Digest, Digest] = {}
        self._reported: set[tuple[str, int]] = set()
        # Tips whose ancestry was examined.
        self._twice: dict[Digest, bool] = {}
        # By node and life: what it had to account for besides its trainer's work.
        self._baseline: dict[tuple[int, int], int] = {}
        self._began_anew: set[tuple[int, int]] = set()
        self._dropped: dict[tuple[int, int], int] = {}
        # What a node may say once: the node, the phase, and the round and view.
        self._spoken: set[tuple[int, Phase, Digest, int]] = set()

    def held(self) -> dict[str, bool]:
        """Every invariant and whether it held."""
        broken = {violation.invariant for violation in self.broken}
        return {name: name not in broken for name in NAMES}

    def fail(self, invariant: str, now: float, what: str) -> None:
        self.broken.append(Violation(invariant=invariant, at_s=now, what=what))

    # ---------------------------------------------------------------- events

    def dropped(self, node: SimulatedNode, samples: int) -> None:
        """The node reported that it dropped work."""
        key = (node.index, node.life)
        self._dropped[key] = self._dropped.get(key, 0) + samples

    def offered(self, node: SimulatedNode, offer: Offer) -> None:
        """The mark of an offer became durable."""
        wrong = self.contents.offered(node.peer, offer)
        if wrong:
            self.fail("nothing twice", 0.0, wrong)

    def crashed(self, node: SimulatedNode, now: float, error: BaseException) -> None:
        inner: BaseException = error
        while isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        lines = traceback.format_exception(inner)
        self.fail("no crash", now, f"node {node.index} crashed: {''.join(lines[-TRACE_LINES:])}")

    def entered(self, node: SimulatedNode, now: float) -> None:
        """The node entered a phase."""
        store = node.engine.state_store if node.engine else None
        if store is None or node.trainer is None:
            return
        key = (node.index, node.life)
        if key not in self._baseline:
            self._begun(node, store, now)
        self._bounds(node, store, now)
        self._one_voice(node, now)

    def _one_voice(self, node: SimulatedNode, now: float) -> None:
        state = node.state
        if state is None or state.phase not in (Phase.SCATTER, Phase.VOTE):
            return
        spoken = (node.index, state.phase, state.parent, state.view)
        if spoken in self._spoken:
            self.fail(
                "one voice",
                now,
                f"node {node.index} entered {state.phase.value} of view {state.view} of "
                f"round {state.number} twice",
            )
        self._spoken.add(spoken)

    def moved(self, node: SimulatedNode, now: float) -> None:
        """The node holds the anchor of its state store's tip."""
        store = node.engine.state_store if node.engine else None
        if store is None:
            return
        self._agreement(node, store, now)
        self._votes(node, store, now)
        self._nothing_twice(store, now)
        if node.index not in self.liars:
            self._nothing_lost(node, store, now)

    # ---------------------------------------------------------------- agreement and content

    def _agreement(self, node: SimulatedNode, store: StateStore, now: float) -> None:
        tip, anchor = store.tip, store.anchor
        state = state_digest(anchor.value, anchor.momentum)
        known = self._states.setdefault(tip.hash, state)
        if known != state or (tip.state and tip.state != state):
            self.fail(
                "agreement",
                now,
                f"node {node.index} and others hold different anchors of certificate {tip.number}",
            )
        if self.contents.knows(tip.hash):
            return
        step = store.lineage.entry(tip.hash)
        if step is None:
            return
        parents = [
            parent
            for name in step.certificate.outcome.parents
            if (parent := store.lineage.tip(name)) is not None
        ]
        weights: tuple[int, int] | Absorption = (0, 0)
        if len(parents) == 2:
            weights = self._merge_weights(store, parents[0], parents[1])
        outer = outer_at(self._manifest, tip.samples - step.certificate.samples)
        wrong = self.contents.check(step.certificate, outer, weights, anchor.value, anchor.momentum)
        if wrong and self._lying_reducer():
            self.unnoticed += 1
        elif wrong:
            self.fail("content", now, wrong)

    def _merge_weights(
        self, store: StateStore, first: Tip, second: Tip
    ) -> tuple[int, int] | Absorption:
        if self._manifest.rules < RULES_4:
            return store.lineage.weights(first, second)
        leads = store.lineage.forks.sides(first, second).preferred.hash == first.hash
        share = store.lineage.forks.merge_share(*((first, second) if leads else (second, first)))
        return Absorption(share=share, first_absorbs=leads)

    def _votes(self, node: SimulatedNode, store: StateStore, now: float) -> None:
        """Check the record of the tip, and who signed its certificate."""
        record = store.tip.record
        if record is None:
            return
        known = self._records.setdefault(store.tip.hash, record.digest)
        number = store.tip.number
        if known != record.digest:
            self.fail(
                "one record",
                now,
                f"node {node.index} and others hold different members after certificate {number}",
            )
        made = store.lineage.entry(store.tip.hash)
        if made is None or node.index in self.liars:
            return
        voters = {
            voter
            for name in made.certificate.outcome.parents
            if (parent := store.lineage.tip(name)) is not None and parent.record is not None
            for voter in parent.record.voters
        }
        if voters and voters.isdisjoint(made.certificate.voters):
            self.fail(
                "no vote, no certificate",
                now,
                f"node {node.index} stands on certificate {number}, which no voter signed",
            )

    def _lying_reducer(self) -> bool:
        """Whether a node of this world sums wrongly.

        What is certified before it is caught stays certified.
        """
        return any(LIES[kind].wrong_sums for kind in self.liars.values())

    def _nothing_twice(self, store: StateStore, now: float) -> None:
        if store.tip.hash in self._twice:
            return
        seen: set[tuple[str, int]] = set()
        path = store.lineage.path(store.lineage.root, store.tip)
        self._twice[store.tip.hash] = True
        if any(len(certificate.outcome.parents) == 2 for certificate in path):
            # The documented exception: work that both branches certified.
            return
        for certificate in path:
            for listed in certificate.listed.items():
                if listed in seen:
                    self.fail(
                        "nothing twice",
                        now,
                        f"seq {listed[1]} of {short(listed[0])} appears twice in the "
                        f"ancestry of {store.tip.number}",
                    )
                seen.add(listed)

    # ---------------------------------------------------------------- nothing lost

    def _begun(self, node: SimulatedNode, store: StateStore, now: float) -> None:
        """Start the accounts of a life from its disk: the ledger, and what was certified since."""
        key = (node.index, node.life)
        root = store.lineage.root
        if not self.contents.knows(store.tip.hash) and store.tip.hash == root.hash:
            self.contents.keep(root.hash, store.anchor.value, store.anchor.momentum)
        path = store.lineage.path(root, store.tip)
        accounted = accounted_for(node.peer, store, self._dropped.get(key, 0))
        collected = node.trainer.collected if node.trainer else 0
        self._baseline[key] = accounted - collected
        saved = node.medium.newest_ledger(root.hash)
        stood_at = store.lineage.tip(saved[0]) if saved is not None else None
        if saved is not None and stood_at is None:
            self._began_anew.add(key)
        if saved is None or stood_at is None or node.index in self.liars:
            return
        had = certified(node.peer, store.lineage.path(root, stood_at)) + saved[1]
        if accounted - collected < had and not any(len(c.outcome.parents) == 2 for c in path):
            self.fail(
                "nothing lost",
                now,
                f"node {node.index} came back with {accounted - collected} samples where "
                f"its disk held {had}",
            )

    def _nothing_lost(self, node: SimulatedNode, store: StateStore, now: float) -> None:
        trainer = node.trainer
        key = (node.index, node.life)
        if trainer is None or key not in self._baseline:
            return
        path = store.lineage.path(store.lineage.root, store.tip)
        accounted = accounted_for(node.peer, store, self._dropped.get(key, 0))
        expected = self._baseline[key] + trainer.collected
        # Where branches merged, both may have certified the same work. That makes more than was
        # handed over, never less. A node that lost its certificates does not know what it was
        # certified for, and what it then drops may have been certified.
        merged = (
            key in self._began_anew
            or bool(self._dropped.get(key))
            or any(len(certificate.outcome.parents) == 2 for certificate in path)
        )
        if accounted < expected or (accounted > expected and not merged):
            self.fail(
                "nothing lost",
                now,
                f"node {node.index} must account for {expected} samples, but {accounted} "
                "are certified, pending or dropped",
            )

    # ---------------------------------------------------------------- bounds

    def _bounds(self, node: SimulatedNode, store: StateStore, now: float) -> None:
        engine, state = node.engine, node.state
        if engine is None or state is None:
            return
        sizes = {
            "events wait": (engine.waiting, QUEUE_FULL + INBOX_SLACK),
            "offers are kept": (len(state.readies), PEERS_KEPT),
            "outcomes are voted for": (len(state.votes), OUTCOMES_KEPT),
            "certificates are kept": (store.lineage.kept, TIPS_KEPT),
            "certificates wait for their parents": (store.lineage.waiting, ORPHANS_KEPT),
            "checkpoints are kept": (
                max((len(kept) for kept in node.medium.checkpoints.values()), default=0),
                KEPT,
            ),
        }
        for what, (size, limit) in sizes.items():
            if size > limit and (what, node.index) not in self._reported:
                self._reported.add((what, node.index))
                self.fail(
                    "bounds", now, f"{size} {what} at node {node.index}; the limit is {limit}"
                )
