"""The record of what the run's chain holds.

As in `records.py`, the field names are a contract, and the imports must load quickly.
"""

from __future__ import annotations

import msgspec

from protocol.status.run_records import RunSummary

NO_CHAIN = "none"
"""The chain of a run that pays nothing."""


class RewardsSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The pool of the run's chain, and this node's account where it has one.

    Amounts are base units as text; empty where they are not known. Times are the chain's, in unix
    seconds, and 0 for none. `pool` is what can still be paid. Work of the epoch `epoch` is settled
    after `epoch_ends_at_s`. The account has `earned` so far, `claimed` part of it, and `claimable`
    waits to be claimed. `pending` comes on top at `pending_at_s`. `as_of_s` is when the chain was
    asked, and `note` says what is missing.
    """

    as_of_s: float
    profile: str
    pool: str = ""
    epoch: int = 0
    epoch_ends_at_s: int = 0
    paused: bool = False
    pending_at_s: int = 0
    account: str = ""
    payout: str = ""
    earned: str = ""
    claimed: str = ""
    claimable: str = ""
    pending: str = ""
    heartbeat_at_s: int = 0
    note: str = ""


def pays(run: RunSummary) -> bool:
    """Return whether members of a run earn anything; False while the run is not known."""
    return run.chain not in ("", NO_CHAIN) and run.engine != "hivemind"
