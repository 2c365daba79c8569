"""What a manifest says of a run's settlement."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

ADDRESS_BYTES = 20
MAX_PAYERS = 64
"""A payer is a service with many users, not a user."""


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


class Serving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run pays for serving (`served.py`).

    `payers` are the peer ids of the homes whose clients' receipts are paid.
    `samples_per_million` are the samples that a million tokens times layers are worth.
    `most_layer_tokens` is what one payer's receipts may bring in one epoch.
    """

    payers: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=60)], ...],
        Meta(min_length=1, max_length=MAX_PAYERS),
    ]
    samples_per_million: Annotated[int, Meta(ge=1, le=10**9)]
    most_layer_tokens: Annotated[int, Meta(ge=1, le=10**15)] = 10**12


class Settlement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a run is settled: the id of the chain and the contract of the pool.

    A binding is signed for exactly these two.
    """

    chain_id: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
    contract: str
    rules: SettlementRules = SettlementRules()
    serving: Serving | UnsetType = UNSET

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
