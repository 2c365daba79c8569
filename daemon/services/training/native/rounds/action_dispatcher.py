"""Carries out the actions of the round machine.

Quick actions happen here at once. An action that takes time runs in a task of its own and reports
its end as an event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from daemon.services.training.native.audit.work_auditor import WorkAuditor
from daemon.services.training.native.engine_context import EngineContext, NodePorts
from daemon.services.training.native.parts import PeerParts
from daemon.services.training.native.rounds.round_executor import RoundExecutor
from daemon.services.training.native.state.state_store import StateStore
from protocol.certificates.certificate import OpenCertificate
from protocol.contribution.offer import Offer
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.journal import Warned
from protocol.messages.base import Message, Signed
from protocol.messages.envelope import sign
from protocol.messages.round import Announce
from protocol.planning.plan import OpenPlan
from protocol.round import actions as a
from protocol.rules.versions import RULES_4


class ActionDispatcher:
    """Carries out the actions of one node's round machine, except `PersistView`."""

    def __init__(
        self,
        *,
        context: EngineContext,
        ports: NodePorts,
        peers: PeerParts,
        state_store: StateStore,
        work_auditor: WorkAuditor,
        executor: RoundExecutor,
        nursery: trio.Nursery,
        on_own_message: Callable[[Signed, Message], None],
    ) -> None:
        """`on_own_message` receives the messages that the machine sends to its own node."""
        self._context, self._ports, self._peers = context, ports, peers
        self._state_store, self._executor, self._nursery = state_store, executor, nursery
        self._work_auditor = work_auditor
        self._on_own_message = on_own_message
        # Before rules 4, a node leaves its branch only by a merge.
        self._leaves_branches = context.manifest.rules >= RULES_4

    def start(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """Run `work` in a task of its own."""
        self._nursery.start_soon(work, *arguments)

    def act(self, action: a.Action) -> None:
        """Carry out one action."""
        executor, data_plane, peers = self._executor, self._peers.data_plane, self._peers
        match action:
            case a.RecordEvent(event=event):
                self._ports.record(event)
            case a.Refuse(peer=peer, reason=reason, detail=detail):
                self._ports.refuse(reason, peer, detail)
            case a.Send(to=to, message=message):
                self._send(to, message)
            case a.Forward(to=to, signed=signed):
                self._forward(to, signed)
            case a.PublishCertificate(certificate=certificate, to=to, gossip=gossip):
                self._publish(certificate, to, gossip)
            case a.RequestCertificate(peers=asked):
                self.start(peers.follower.ask, asked)
            case a.MakeOffer():
                peers.auditor.release_offer()
                self.start(executor.make_offer)
            case a.ResumeTraining():
                self.start(executor.resume_training)
            case a.Scatter(plan=plan, offer=offer):
                self._scatter(plan, offer)
            case a.Reduce():
                store = self._state_store
                self.start(data_plane.reduce, action, store.anchor, store.results)
            case a.ServeInclusion(inclusion=inclusion, digest=name):
                self.start(data_plane.serve, inclusion, name)
            case a.ForwardResults(plan=plan_digest, slices=slices, to=members):
                data_plane.forward_results(plan_digest, slices, members)
            case a.AbandonExchange():
                data_plane.abandon()
            case a.AuditReducers(certificate=certificate, disputed=disputed):
                self._audit(certificate, disputed)
            case a.AdoptCertificate(certificate=certificate, downloaded=downloaded):
                self.start(executor.adopt, certificate, downloaded)
            case a.FetchState(certificate=certificate):
                self.start(partial(executor.fetch, certificate, ahead=self._leaves_branches))
            case a.GiveUpState(certificate=name, merging=merging, missed_s=missed_s):
                executor.give_up(name, merging, missed_s)
            case a.FetchBranch(other=other):
                self.start(executor.fetch_branch, other)
            case a.Recover(tip=tip):
                self.start(executor.recover, tip)
            case a.AverageBranches(other=other):
                self.start(executor.average, other)

    def _scatter(self, plan: OpenPlan, offer: Offer) -> None:
        self._state_store.ledger.mark_sent()
        self._peers.auditor.keep_offer(plan.digest, offer)
        if self._work_auditor.audits:
            self.start(self._peers.contributions.keep, plan.digest, offer)
        self._peers.data_plane.scatter(plan, offer, self._state_store.anchor)

    def _audit(self, certificate: OpenCertificate, disputed: bool) -> None:
        # Read the exchange now, because it ends when the certificate is adopted.
        received = self._peers.data_plane.received(certificate)
        samples = self._peers.data_plane.samples(certificate)
        self.start(self._peers.auditor.audit, certificate, received, samples, disputed)
        self.start(self._peers.fraud_proofs.announce)
        if self._work_auditor.wants(certificate):
            self.start(self._work_auditor.audit, certificate, self._state_store.anchor.value)

    def _send(self, to: tuple[PeerId, ...], message: Message) -> None:
        signed = sign(self._context.signer, self._context.run, message)
        for peer in to:
            if peer == self._context.me:
                self._on_own_message(signed, message)
            else:
                self._peers.messenger.send(peer, signed)

    def _forward(self, to: tuple[PeerId, ...], signed: Signed) -> None:
        for peer in to:
            self._peers.messenger.send(peer, signed)

    def _publish(self, certificate: OpenCertificate, to: tuple[PeerId, ...], gossip: bool) -> None:
        """Add a certificate that this node assembled to the lineage, and send it out.

        The machine adopts the certificate itself. A lineage that refuses it here also refuses it in
        `RoundExecutor.adopt`.
        """
        try:
            self._peers.follower.receive_certificate(certificate.raw)
        except PeerFault as fault:
            message = f"the certificate that this node assembled does not verify: {fault}"
            self._ports.record(Warned(code="CERTIFICATE", message=message))
            return
        announce = Announce(certificate=certificate.raw)
        self._forward(to, sign(self._context.signer, self._context.run, announce))
        if gossip:
            self.start(self._peers.follower.publish_certificate, certificate.raw)
