"""What a manifest says of a run's settlement."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

ADDRESS_BYTES = 20


class SettlementRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Periods of a settlement. Epochs are counted, not timed.

    `lock_epochs`: how long earnings stay locked before they are in a root. Volunteers have no stake
    to lose, but they can lose these. `held_epochs`: how long work waits for an account that sends
    no heartbeat.
    """

    lock_epochs: Annotated[int, Meta(ge=0, le=1000)] = 1
    held_epochs: Annotated[int, Meta(ge=0, le=1000)] = 4
    quarantine_epochs: Annotated[int, Meta(ge=1, le=1000)] = 2
    probation_epochs: Annotated[int, Meta(ge=1, le=1000)] = 8


class Settlement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a run is settled: the id of the chain and the contract of the pool.

    A binding is signed for exactly these two.
    """

    chain_id: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
    contract: str
    rules: SettlementRules = SettlementRules()

    def __post_init__(self) -> None:
        if len(self.contract_bytes) != ADDRESS_BYTES:
            raise ValueError(
                f"settlement.contract {self.contract!r} is not an address: 0x and 40 "
                "hexadecimal digits"
            )

    @property
    def contract_bytes(self) -> bytes:
        """The 20 bytes of the contract."""
        try:
            return bytes.fromhex(self.contract.removeprefix("0x"))
        except ValueError:
            return b"?"
