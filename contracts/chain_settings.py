"""Which chain a client talks to, and what it may spend."""

from __future__ import annotations

import msgspec

from contracts.fees import GWEI

HYPERGPU, PLUMISE = "hypergpu", "plumise"
# Base units per gas. A heartbeat then costs at most 0.05 coins.
DEFAULT_FEE_LIMIT = 500 * GWEI


class ChainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A chain, its endpoints, and the limits of a client.

    `urls` are tried in order. A transaction counts as settled once it is `confirmations` blocks
    deep. `max_fee_per_gas` is in base units.
    """

    profile: str = HYPERGPU
    chain_id: int
    urls: tuple[str, ...]
    confirmations: int = 2
    max_fee_per_gas: int = DEFAULT_FEE_LIMIT

    def __post_init__(self) -> None:
        if self.profile not in (HYPERGPU, PLUMISE):
            raise ValueError(f"there is no chain profile {self.profile!r}: hypergpu or plumise")
