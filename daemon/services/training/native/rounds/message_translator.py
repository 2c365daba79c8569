"""From verified messages to events of the round machine.

An offer for a round that has not begun here yet waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from daemon.swarm.messenger import Refuse
from daemon.swarm.task_agreement import TaskAgreement
from protocol.averaging.judgment import Judgment
from protocol.certificates.decoded_plans import DecodedPlans
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.messages.base import Message, Signed
from protocol.messages.envelope import open_as
from protocol.messages.offer import Ready, task_of
from protocol.messages.round import HoldReport, Inclusion, Plan, Vote, Withdrawal
from protocol.planning.plan import OpenPlan
from protocol.round import events as e
from protocol.round.state import RoundState

# Offers of one peer: for a view or two of the next round, and of the one after it.
EARLY_OF_PEER = 4
# Offers for a round that has not begun here: four times the largest group.
EARLY_OFFERS = 256


class MessageTranslator:
    """Turns a message into an event of the current round, keeps it for later, or refuses it."""

    def __init__(
        self,
        run: Digest,
        plans: DecodedPlans,
        emit: Callable[[e.Event, bool], None],
        refuse: Refuse,
        guilty: Mapping[PeerId, Judgment],
        left_out: Callable[[PeerId], str] = lambda _: "",
        tasks: TaskAgreement | None = None,
    ) -> None:
        """Compose a translator.

        Args:
            run: Names the run.
            plans: The plans that were decoded lately.
            emit: Receives an event, and whether it goes before the events that wait.
            refuse: Receives the reason for a message that is refused.
            guilty: The peers that neither offer nor lead, now and as it changes.
            left_out: Why a peer is not let into this node's plans, or nothing.
            tasks: Knows which tasks are this node's.
        """
        self._left_out, self._tasks = left_out, tasks
        self._run, self._plans, self._emit, self._refuse = run, plans, emit, refuse
        self._guilty = guilty
        self._early: deque[Signed] = deque(maxlen=EARLY_OFFERS)

    def translate(
        self, state: RoundState, signed: Signed, message: Message, *, ours: bool = False
    ) -> None:
        """Translate one message. `ours` marks a message of this node.

        Its event goes first: nothing may come between a message and the node's own part in it.
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
                    # This node's plan is then made without the offer.
                    self._refuse("other_task", signed.peer, why)
                elif not ours and (why := self._left_out(signed.peer)):
                    # This node's plan is then made without the offer.
                    self._refuse("not_admitted", signed.peer, why)
                else:
                    self._emit(e.ReadyReceived(signed=signed, ready=message), ours)
            case Plan():
                try:
                    plan = self._plans.open(signed, state.context.chunks)
                except PeerFault as fault:
                    self._refuse(fault.reason, signed.peer, str(fault))
                    return
                if other := self._other_task(plan):
                    self._refuse(
                        "other_task",
                        signed.peer,
                        f"the plan has an offer for another task: {other}",
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
            case _:
                self._refuse(
                    "unknown_kind",
                    signed.peer,
                    f"a {type(message).__name__} is not a message of a round",
                )

    def _other_task(self, plan: OpenPlan) -> str:
        """Why an offer of the plan is for another task, or nothing.

        Tasks that this node has not compared were compared by the leader, whose task is ours.
        """
        if self._tasks is None:
            return ""
        return next(
            (why for offer in plan.offers if (why := self._tasks.differs(task_of(offer)))), ""
        )

    def _keep_early(self, signed: Signed) -> None:
        """Keep an offer. Many offers of one peer push out its own, never those of another."""
        of_peer = [one for one in self._early if one.peer == signed.peer]
        if len(of_peer) >= EARLY_OF_PEER:
            self._early.remove(of_peer[0])
        self._early.append(signed)

    def retry_early(self, state: RoundState) -> None:
        """Translate the offers that were early: the round has another parent now."""
        early, self._early = list(self._early), deque(maxlen=EARLY_OFFERS)
        for signed in early:
            self.translate(state, signed, open_as(Ready, signed, self._run, trusted=True))
