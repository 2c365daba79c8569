"""Which kinds of offers and plans a run has.

Members of one run sign one kind each. A plan of another kind would have fields that the run's rules
do not judge, or lack those that they do.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.errors import PeerFault
from protocol.messages.offer import Ready, TrustReady
from protocol.messages.round import Plan, TrustPlan
from protocol.rules.versions import RULES_4


def is_of(offer: Ready, rules: int) -> bool:
    """Whether an offer is of the kind that runs of these rules have."""
    return isinstance(offer, TrustReady) == (rules >= RULES_4)


def check_kinds(plan: Plan, offers: Iterable[Ready], rules: int) -> None:
    """Check the kinds of a plan and its offers. Raises `PeerFault("bad_plan")`."""
    if isinstance(plan, TrustPlan) != (rules >= RULES_4):
        raise PeerFault("bad_plan", f"a plan that is not of rules {rules}")
    if not all(is_of(offer, rules) for offer in offers):
        raise PeerFault("bad_plan", f"a plan with an offer that is not of rules {rules}")
