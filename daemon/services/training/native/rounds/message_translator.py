"""Translates verified messages into events of the round machine.

An offer for a later round waits until this node begins that round.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from daemon.swarm.messenger import Refuse
from daemon.swarm.task_agreement import TaskAgreement
from protocol.averaging.judgment import Judgment
from protocol.certificates.decoded_plans import DecodedPlans
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.membership.invitation import proof_expiry_fault
from protocol.messages.base import Message, Signed
from protocol.messages.envelope import open_as
from protocol.messages.membership import Leave
from protocol.messages.offer import Ready, TrustReady, task_of
from protocol.messages.round import HoldReport, Inclusion, Plan, Vote, Withdrawal
from protocol.planning.plan import OpenPlan
from protocol.round import events as e
from protocol.round.state import RoundState

# Early offers kept of one peer: one or two views of each of the next two rounds.
EARLY_OF_PEER = 4
# Early offers kept in all: four times the largest group.
EARLY_OFFERS = 256


class MessageTranslator:
    """Turns each message into an event of the current round, keeps it for later, or refuses it."""

    def __init__(
        self,
        run: Digest,
        plans: DecodedPlans,
        emit: Callable[[e.Event, bool], None],
        refuse: Refuse,
        guilty: Mapping[PeerId, Judgment],
        exclusion_reason: Callable[[PeerId], str] = lambda _: "",
        tasks: TaskAgreement | None = None,
    ) -> None:
        """Create a translator that has no early offers.

        Args:
            run: Names the run.
            plans: The plans that were decoded recently.
            emit: Receives an event, and whether it goes before the waiting events.
            refuse: Receives the reason for a message that is refused.
            guilty: The peers that may neither offer nor lead. The mapping may change.
            exclusion_reason: Returns why a peer may not be in this node's plans; "" if it may.
            tasks: Compares peers' tasks with this node's; None compares nothing.
        """
        self._exclusion_reason, self._tasks = exclusion_reason, tasks
        self._run, self._plans, self._emit, self._refuse = run, plans, emit, refuse
        self._guilty = guilty
        self._early: deque[Signed] = deque(maxlen=EARLY_OFFERS)

    def translate(
        self, state: RoundState, signed: Signed, message: Message, *, ours: bool = False
    ) -> None:
        """Translate one message. `ours` marks a message of this node.

        The event of such a message goes first: nothing may come between a message and this node's
        own part in it.
        """
        if signed.peer in self._guilty and isinstance(message, Ready | Plan):
            self._refuse("wrong_sum", signed.peer, str(self._guilty[signed.peer]))
            return
        match message:
            case Ready():
                if message.parent != state.parent and message.number > state.tip.number:
                    self._keep_early(signed)
                elif (
                    self._tasks is not None
                    and not ours
                    and (why := self._tasks.refusal(task_of(message)))
                ):
                    # This node's plan then excludes the offer.
                    self._refuse("other_task", signed.peer, why)
                elif not ours and (
                    why := self._exclusion_reason(signed.peer) or self._expired(message)
                ):
                    self._refuse("not_admitted", signed.peer, why)
                else:
                    self._emit(e.ReadyReceived(signed=signed, ready=message), ours)
            case Plan():
                try:
                    plan = self._open(state, signed, message)
                except PeerFault as fault:
                    self._refuse(fault.reason, signed.peer, str(fault))
                    return
                if other := self._other_task(plan):
                    self._refuse(
                        "other_task",
                        signed.peer,
                        f"the plan contains an offer for another task: {other}",
                    )
                else:
                    self._emit(e.PlanReceived(signed=signed, plan=plan), ours)
            case HoldReport():
                self._emit(e.HoldReportReceived(peer=signed.peer, report=message), ours)
            case Withdrawal():
                self._emit(e.WithdrawalReceived(peer=signed.peer, withdrawal=message), ours)
            case Inclusion():
                self._emit(e.InclusionReceived(signed=signed, inclusion=message), ours)
            case Vote():
                self._emit(e.VoteReceived(signed=signed, vote=message), ours)
            case Leave():
                self._emit(e.LeaveReceived(signed=signed), ours)
            case _:
                self._refuse(
                    "unknown_kind",
                    signed.peer,
                    f"a {type(message).__name__} is not a message of a round",
                )

    def _open(self, state: RoundState, signed: Signed, plan: Plan) -> OpenPlan:
        """Open a plan; one for another round is only read, because its record is not known here."""
        chunks = state.context.chunks
        if state.record is not None and plan.parent != state.parent:
            return self._plans.read(signed, chunks)
        return self._plans.open(signed, chunks, state.record)

    @staticmethod
    def _expired(offer: Ready) -> str:
        """Return why this node admits no new peer by the invitation in an offer; "" if it may.

        Members judge a certificate alike whatever their clocks say. So only a leader looks at its
        clock, and only before it plans.
        """
        proof = offer.invitation if isinstance(offer, TrustReady) else b""
        return proof_expiry_fault(proof, time.time()) if proof else ""

    def _other_task(self, plan: OpenPlan) -> str:
        """Return why an offer of the plan is for another task; "" if none is.

        The leader, whose task is this node's, has compared the tasks that this node has not.
        """
        if self._tasks is None:
            return ""
        return next(
            (why for offer in plan.offers if (why := self._tasks.differs(task_of(offer)))), ""
        )

    def _keep_early(self, signed: Signed) -> None:
        """Keep an offer. A flood of offers from one peer replaces only that peer's own."""
        of_peer = [one for one in self._early if one.peer == signed.peer]
        if len(of_peer) >= EARLY_OF_PEER:
            self._early.remove(of_peer[0])
        self._early.append(signed)

    def retry_early(self, state: RoundState) -> None:
        """Translate the early offers again, because the round has another parent now."""
        early, self._early = list(self._early), deque(maxlen=EARLY_OFFERS)
        for signed in early:
            self.translate(state, signed, open_as(Ready, signed, self._run, trusted=True))
