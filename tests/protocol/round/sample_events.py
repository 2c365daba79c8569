"""One event of every type in a round of three nodes, and a node that trains."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.certificates.certificate import open_certificate
from protocol.certificates.tip import genesis
from protocol.contribution.offer import NOTHING
from protocol.identity import PeerId
from protocol.messages.envelope import sign
from protocol.messages.round import HoldReport, Withdrawal
from protocol.round import events as e
from protocol.round.machine import begin
from protocol.round.state import RoundState, RunContext
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, named, people, ready

ME, *OTHERS = people(3)
MADE = Made(people(3))
TIP = genesis(RUN)
EVENTS: dict[type[e.Event], e.Event] = {
    type(event): event
    for event in (
        e.DeadlinePassed(),
        e.TrainingFinished(),
        e.OfferMade(ready=ready(TIP, ME), offer=NOTHING),
        e.LivePeersChanged(live=frozenset(person.peer for person in OTHERS)),
        e.PeerLost(peer=OTHERS[0].peer),
        e.ReadyReceived(signed=MADE.plan.offers[1], ready=MADE.open_plan().offers[1]),
        e.PlanReceived(signed=MADE.plan_signed, plan=MADE.open_plan()),
        e.ContributionsReceived(plan=MADE.plan_signed.digest, contributors=frozenset({0})),
        e.HoldReportReceived(
            peer=OTHERS[0].peer, report=HoldReport(plan=MADE.plan_signed.digest, contributors=(0,))
        ),
        e.WithdrawalReceived(
            peer=OTHERS[0].peer,
            withdrawal=Withdrawal(plan=MADE.plan_signed.digest, reason="elsewhere"),
        ),
        e.InclusionReceived(signed=MADE.inclusion_signed, inclusion=MADE.inclusion),
        e.ResultReceived(inclusion=MADE.inclusion_signed.digest, slice=0),
        e.OutcomeComputed(vote=MADE.vote),
        e.VoteReceived(signed=sign(OTHERS[0], RUN, MADE.vote), vote=MADE.vote),
        e.CertificateReceived(certificate=open_certificate(MADE.raw(), RUN, MANIFEST, CHUNKS)),
        e.CertificateAdopted(tip=MADE.next_tip()),
        e.StateBytesReceived(certificate=MADE.next_tip().hash),
        e.StateReceived(
            certificate=open_certificate(MADE.raw(), RUN, MANIFEST, CHUNKS),
            tip=TIP.hash,
            ahead=True,
        ),
        e.StateUnavailable(certificate=MADE.next_tip().hash, reason="no peer has it"),
        e.RecoveryFound(tip=replace(TIP, hash=named("the owner's recovery"))),
        e.RecoveryFailed(reason="no member has its state"),
        e.ForkFound(other=replace(TIP, hash=named("another branch"), number=1)),
        e.MergePrepared(
            other=replace(TIP, hash=named("another branch"), number=1),
            state=named("state"),
            ready=ready(TIP, ME, samples=0, seq=0),
        ),
        e.ViewNotPersisted(reason="the disk is full"),
    )
}


def training_node(live: tuple[PeerId, ...] = tuple(person.peer for person in OTHERS)) -> RoundState:
    """Return a node that trains at genesis, with two other nodes."""
    return begin(
        RunContext(run=RUN, me=ME.peer, manifest=MANIFEST, chunks=CHUNKS),
        TIP,
        0.0,
        live=frozenset(live),
    )
