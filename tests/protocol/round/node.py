"""One node of a test cluster: its machine, and an engine as small as the order of events allows."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from daemon.swarm.lineage import Lineage
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.merge import merge_parents, merge_round
from protocol.contribution.offer import NOTHING
from protocol.digest import Digest, digest
from protocol.identity import PeerId, Signer
from protocol.messages.base import Signed
from protocol.messages.envelope import open_signed, sign
from protocol.messages.offer import Ready
from protocol.round import actions as a
from protocol.round import events as e
from protocol.round.machine import begin, step
from protocol.round.state import RunContext
from tests.protocol.round import invariants
from tests.protocol.round.exchange import FakeExchange, Result, Slice, Sum
from tests.protocol.round.message_events import event_of

if TYPE_CHECKING:
    from tests.protocol.round.cluster import TestCluster

CHUNKS = 5
# The anchors that a node can serve to others.
STATES_KEPT = 3
Content = Signed | bytes | Slice | Sum | Result
"""The content of a packet: a signed message, a certificate, a slice, a sum or a result."""


class TestNode:
    """One node: its machine, and what an engine keeps for it."""

    # Without this, pytest collects Test* as test cases.
    __test__ = False

    def __init__(self, cluster: TestCluster, signer: Signer, lineage: Lineage) -> None:
        self.cluster, self.signer, self.me = cluster, signer, signer.peer
        self.lineage = lineage
        # The tip of the anchor; the machine's own tip follows with `CertificateAdopted`.
        self.tip = lineage.best
        self.state = begin(
            RunContext(run=cluster.run_id, me=self.me, manifest=cluster.manifest, chunks=CHUNKS),
            self.tip,
            cluster.now,
        )
        # The state in the spare buffers.
        self.spare: Digest = b""
        self.kept: list[Digest] = [self.tip.hash]
        self.inbox: deque[e.Event] = deque()
        # The actions that the machine requested and the node has not done yet.
        self.work: deque[a.Action] = deque()
        self.early: list[Signed] = []
        self.seq = 0
        # The samples of each offer.
        self.samples = 10
        self.lost: set[PeerId] = set()
        self.alive = True
        self.exchange = FakeExchange(self)
        self.transcript = invariants.Transcript()
        # On disk: by parent, the first view in which this node has not acted.
        self.view_records: dict[Digest, int] = {}
        self.disk_full = False

    def run(self, limit: int = 10_000) -> None:
        """Let the machine handle its inbox."""
        while self.inbox and self.alive and limit:
            self.see(self.inbox.popleft())
            limit -= 1
        assert limit or not self.inbox, "the machine produces events endlessly without any input"

    def see(self, event: e.Event) -> None:
        before, now = self.state, self.cluster.now
        self.state, actions = step(before, event, now)
        invariants.check_step(before, event, self.state, actions)
        self.transcript.check_view(self.state)
        for action in actions:
            if isinstance(action, a.PersistView) and self.disk_full:
                self.inbox.appendleft(e.ViewNotPersisted(reason="the disk is full"))
                break
            self.act(action)
        if isinstance(event, e.PeerLost):
            self.exchange.lost()
        if isinstance(event, e.CertificateAdopted) or before.parent != self.state.parent:
            early, self.early = self.early, []
            for signed in early:
                self.open(signed)
            self.update_live()

    def act(self, action: a.Action) -> None:
        match action:
            case a.Send(to=to, message=message):
                self.transcript.check(message)
                self.transcript.check_durable(message, self.view_records)
                signed = sign(self.signer, self.cluster.run_id, message)
                for peer in to:
                    if peer == self.me:
                        self.open(signed, ours=True)
                    else:
                        self.cluster.send(self.me, peer, signed)
            case a.Forward(to=to, signed=signed):
                for peer in to:
                    self.cluster.send(self.me, peer, signed)
            case a.PersistView(parent=parent, view=view):
                self.view_records[parent] = max(self.view_records.get(parent, 0), view + 1)
            case a.Scatter(plan=plan):
                self.transcript.check_scatter(plan)
                self.exchange.scatter(plan)
            case a.Reduce(inclusion=inclusion, digest=name):
                self.exchange.reduce(inclusion, name)
            case a.ServeInclusion(inclusion=inclusion, digest=name):
                self.exchange.serve(inclusion, name)
            case a.ForwardResults(slices=slices, to=to):
                self.exchange.forward_results(slices, to)
            case a.AbandonExchange():
                self.exchange.abandon()
            case a.RequestCertificate(peers=peers):
                for peer in peers:
                    self.cluster.send_chain(self, peer)
            case a.PublishCertificate(certificate=certificate, to=to, gossip=gossip):
                if gossip:
                    self.cluster.gossiped.append(self.me)
                self.cluster.check_certificate(certificate.raw)
                self.learn(certificate.raw)
                for peer in to:
                    self.cluster.send(self.me, peer, certificate.raw)
            case (
                a.MakeOffer()
                | a.AdoptCertificate()
                | a.FetchState()
                | a.FetchBranch()
                | a.AverageBranches()
            ):
                self.work.append(action)
            case a.Refuse(peer=peer, reason=reason, detail=detail):
                self.cluster.refused.append((self.me, peer, reason, detail))
            case a.ResumeTraining() | a.RecordEvent() | a.AuditReducers() | a.GiveUpState():
                pass
            case _:
                raise AssertionError(f"no handler for {action}")

    def restart(self) -> None:
        """Kill the node and start it again from what is on disk."""
        self.inbox.clear()
        self.work.clear()
        self.early.clear()
        self.lost.clear()
        self.spare = b""
        self.exchange = FakeExchange(self)
        self.transcript.begin_new_life()
        self.state = begin(
            self.state.context, self.tip, self.cluster.now, view_records=dict(self.view_records)
        )
        self.update_live()
        self.run()

    def receive(self, content: Content) -> None:
        """Receive a packet."""
        match content:
            case Signed():
                self.open(content)
            case bytes():
                self.learn(content)
            case _:
                self.exchange.receive(content)

    def open(self, signed: Signed, *, ours: bool = False) -> None:
        message = open_signed(signed, self.cluster.run_id, trusted=True)
        if (
            isinstance(message, Ready)
            and message.parent != self.state.parent
            and message.number > self.state.tip.number
        ):
            self.early.append(signed)
            return
        event = event_of(signed, message, self.cluster.checked_plan)
        if ours:
            self.inbox.appendleft(event)
        else:
            self.inbox.append(event)

    def learn(self, raw: bytes) -> None:
        if self.lineage.add(raw, trusted=True):
            self.look()

    def look(self) -> None:
        """Follow the lineage, or find another branch."""
        ahead = self.lineage.preferred_descendant(self.state.tip)
        made = self.lineage.entry(ahead.hash) if ahead is not None else None
        if made is not None:
            self.inbox.append(e.CertificateReceived(certificate=made.certificate))
            return
        for other in self.lineage.other_branches(self.state.tip):
            if any(node.state.tip.hash == other.hash for node in self.known()):
                self.inbox.append(e.ForkFound(other=other))
                return

    def known(self) -> list[TestNode]:
        """The nodes that beacons report alive."""
        return [
            other
            for other in self.cluster.alive()
            if other is not self and other.me not in self.lost
        ]

    def update_live(self) -> None:
        tips = {self.state.tip.hash} | (
            {self.state.merge.other.hash} if self.state.merge else set()
        )
        live = frozenset(other.me for other in self.known() if other.state.tip.hash in tips)
        if live != self.state.live:
            self.inbox.append(e.LivePeersChanged(live=live))
        self.look()

    def lose(self, peer: PeerId) -> None:
        """Break the connection to a peer."""
        self.lost.add(peer)
        self.inbox.append(e.PeerLost(peer=peer))
        self.update_live()

    def finish(self) -> None:
        """Finish the oldest piece of work."""
        match self.work.popleft():
            case a.MakeOffer():
                self.seq += bool(self.samples)
                self.inbox.append(
                    e.OfferMade(
                        ready=self._ready(self.tip.hash, self.tip.number + 1, samples=self.samples),
                        offer=NOTHING,
                    )
                )
            case a.AdoptCertificate(certificate=certificate, downloaded=downloaded):
                assert downloaded or self.spare == certificate.outcome.state, (
                    "adopts a state that is not in the spare buffer"
                )
                self._move(certificate.hash)
            case a.FetchState(certificate=certificate):
                self._download(certificate)
            case a.FetchBranch(other=other):
                made = self.lineage.entry(other.hash)
                assert made is not None
                self._download(made.certificate)
            case a.AverageBranches(other=other):
                parents = merge_parents(self.tip.hash, other.hash)
                self.spare = digest(b"merged", *parents)
                ready = self._ready(
                    merge_round(parents), max(self.tip.number, other.number) + 1, samples=0
                )
                self.inbox.append(e.MergePrepared(other=other, state=self.spare, ready=ready))

    def _download(self, certificate: OpenCertificate) -> None:
        """Download a state, one at a time."""
        if any(isinstance(later, a.FetchState | a.FetchBranch) for later in self.work):
            return
        if self.cluster.downloads(certificate.hash, self):
            self.inbox.append(e.StateBytesReceived(certificate=certificate.hash))
            made = self.lineage.entry(certificate.hash)
            assert made is not None
            ahead = self.lineage.descends(made.tip, self.tip)
            here = e.StateReceived(certificate=certificate, tip=self.tip.hash, ahead=ahead)
            self.inbox.append(here)
        else:
            self.inbox.append(
                e.StateUnavailable(certificate=certificate.hash, reason="no peer has it")
            )

    def _move(self, name: Digest) -> None:
        made = self.lineage.entry(name)
        assert made is not None
        assert self.lineage.descends(made.tip, self.tip), "moves to another branch without merging"
        self.tip, self.spare = made.tip, b""
        self.kept = [*self.kept, name][-STATES_KEPT:]
        self.inbox.append(e.CertificateAdopted(tip=made.tip))

    def _ready(self, parent: Digest, number: int, *, samples: int) -> Ready:
        return Ready(
            parent=parent,
            view=0,
            number=number,
            seq=self.seq if samples else 0,
            samples=samples,
            contribution=digest(self.me.encode(), self.seq.to_bytes(8, "big")),
            loss=None,
            fingerprint=digest(self.me.encode()),
            uplink_bps=0,
            downlink_bps=0,
        )
