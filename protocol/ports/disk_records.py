"""The records that a node keeps on disk."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from protocol.digest import Buffer, Digest


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a node needs to continue from one certificate after a restart.

    At genesis, `tip` is the run id and `number` is 0. msgspec cannot describe arrays: vectors are
    `Any` here, and this record never crosses a wire.
    """

    run: Digest
    tip: Digest
    number: int
    anchor: Any  # Vector
    momentum: Any  # Vector
    inner: Any  # Vector; empty without a state.
    # Name and shape of each tensor in the anchor, in order; empty where not known.
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    # The tip with all its figures (`encode_tip`), since the certificates on disk may not reach back
    # to genesis. Empty where not known.
    stood: bytes = b""
    # The task that made the model, and its options as JSON; empty where not known.
    task: str = ""
    task_options: str = ""


class SentOffer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer of an earlier parent that was sent and that a certificate may still list."""

    seq: int
    weight: int
    digest: Digest
    encoded: Buffer
    # The share of its work that the residue still holds.
    factor: float
    # The samples of it that still wait.
    left: int


def _empty() -> Any:
    return np.zeros(0, np.float32)


class LedgerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The contributor's ledger on disk (`protocol/contribution/ledger.py`)."""

    run: Digest
    tip: Digest
    next_seq: int
    weight: int
    carried: int
    # 0 without an offer.
    offered_seq: int
    offered_weight: int
    offered_digest: Digest
    # The encoded contribution: exactly the bytes that a retry sends.
    offered: Buffer
    # Vector S.
    residue: Any
    # The samples of the trajectory from `tip`, and its displacement: Vector T, empty without
    # samples.
    samples: int = 0
    displacement: Any = msgspec.field(default_factory=_empty)
    # The same of what was trained after the offer was sent.
    later_samples: int = 0
    later: Any = msgspec.field(default_factory=_empty)
    # Samples of the round's lane that were used.
    drawn: int = 0
    # The rounds of training in the trajectory, and in `later`.
    rounds: int = 0
    later_rounds: int = 0
    # Offers of earlier parents that are not settled, by seq.
    sent: tuple[SentOffer, ...] = ()


class LedgerMark(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The figures of a ledger that is newer than the `LedgerRecord` on disk.

    A node writes it before each offer. After a restart it says which offers the ledger on disk does
    not know, so that nothing is counted twice.
    """

    # The parent of the offer.
    tip: Digest
    next_seq: int
    # 0 without an offer.
    offered_seq: int
    offered_weight: int
    offered_digest: Digest
    # The samples that no certificate listed, and the used samples of the round's lane.
    pending: int
    drawn: int
    # Whether an offer that the ledger on disk does not hold was sent, this one aside.
    sent: bool


class HeldCertificate(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A certificate that a node holds, and since when: seconds of the caller's clock."""

    certificate: Digest
    since_s: float


class ViewRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The first view of a round in which this node has not planned, scattered or voted."""

    # The name of the round.
    parent: Digest
    view: int
