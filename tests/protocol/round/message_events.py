"""The event that each message means to the round machine."""

from __future__ import annotations

from collections.abc import Callable

from protocol.messages.base import Message, Signed
from protocol.messages.offer import Ready
from protocol.messages.round import HoldReport, Inclusion, Plan, Vote, Withdrawal
from protocol.planning.plan import OpenPlan
from protocol.round import events as e


def event_of(signed: Signed, message: Message, open_plan: Callable[[Signed], OpenPlan]) -> e.Event:
    """Return the event of a message that arrived; `open_plan` checks and opens plans."""
    match message:
        case Ready():
            return e.ReadyReceived(signed=signed, ready=message)
        case Plan():
            return e.PlanReceived(signed=signed, plan=open_plan(signed))
        case HoldReport():
            return e.HoldReportReceived(peer=signed.peer, report=message)
        case Withdrawal():
            return e.WithdrawalReceived(peer=signed.peer, withdrawal=message)
        case Inclusion():
            return e.InclusionReceived(signed=signed, inclusion=message)
        case Vote():
            return e.VoteReceived(signed=signed, vote=message)
        case _:
            raise AssertionError(f"no node sends {message}")
