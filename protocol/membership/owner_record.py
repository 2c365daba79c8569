"""The owner's records: what the owner of a run signs while the run goes on (rules 4).

    Revocation     takes a peer or an invitation out of the run, for good
    Recovery       says from which certificate the run goes on; the highest serial counts
    TrainingOrder  starts, pauses or stops training; only the one with the highest serial is kept

Every node keeps the records that it has heard and gives them to others
(`daemon/swarm/owner_exchange.py`). Only the owner can make one, so nobody else can fill a node's
memory. A record changes who votes once a plan lists it: what one node has heard is no part of any
certificate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages.base import UNREADABLE, Signed
from protocol.messages.envelope import open_signed
from protocol.messages.membership import (
    MAX_NOTICES,
    OrderAction,
    Recovery,
    Revocation,
    TrainingOrder,
)

MAX_RECORDS = 1024
"""The records that a node keeps: more than an owner revokes, and 300 KB at most.

A record of a revocation has about 180 bytes, one of a recovery with 32 voters 2 KB.
"""

OwnerMessage = Revocation | Recovery | TrainingOrder


class OwnerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One verified record, and the envelope that carries it."""

    signed: Signed
    message: OwnerMessage


class _Records(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The records as they are stored and sent: `MAX_RECORDS` and an order."""

    signed: Annotated[tuple[Signed, ...], Meta(max_length=MAX_RECORDS + 1)]


_decoder = msgspec.msgpack.Decoder(_Records)


def open_owner_record(signed: Signed, run: Digest, owner: PeerId) -> OwnerRecord:
    """Verify a record of a run's owner.

    Raises:
        PeerFault: "not_owner" for the record of another peer, "malformed" for another message.
    """
    if not owner or signed.peer != owner:
        raise PeerFault("not_owner", f"{short(signed.peer)} is not the owner of this run")
    message = open_signed(signed, run)
    if not isinstance(message, OwnerMessage):
        raise PeerFault("malformed", f"a {type(message).__name__} is no record of an owner")
    return OwnerRecord(signed=signed, message=message)


class OwnerRecords:
    """The owner's records that one node has heard. Pure."""

    def __init__(self, run: Digest, owner: PeerId) -> None:
        self._run, self._owner = run, owner
        # Grows with each new record.
        self.version = 0
        # By invitation: the peers that it has admitted, by the membership record of the node's tip.
        self.used: Mapping[PeerId, int] = {}
        self._revocations: dict[PeerId, OwnerRecord] = {}
        self._recoveries: dict[int, OwnerRecord] = {}
        self._order: OwnerRecord | None = None

    def __len__(self) -> int:
        orders = 1 if self._order is not None else 0
        return len(self._revocations) + len(self._recoveries) + orders

    def add(self, signed: Signed) -> OwnerRecord | None:
        """Verify and keep a record. Returns it where it is new and counts, else None.

        Raises:
            PeerFault: as `open_owner_record`; "too_many" above `MAX_RECORDS`.
        """
        record = open_owner_record(signed, self._run, self._owner)
        match record.message:
            case Revocation(subject=subject):
                if subject in self._revocations:
                    return None
                if len(self) >= MAX_RECORDS:
                    raise PeerFault("too_many", f"more than {MAX_RECORDS} records of the owner")
                self._revocations[subject] = record
            case Recovery(serial=serial):
                # Certificates after an earlier recovery name it as their parent, so it stays.
                if serial in self._recoveries:
                    return None
                if len(self) >= MAX_RECORDS:
                    raise PeerFault("too_many", f"more than {MAX_RECORDS} records of the owner")
                self._recoveries[serial] = record
            case TrainingOrder(serial=serial):
                # One place is always free: a newer order replaces the kept one.
                if self.order is not None and serial <= self.order.serial:
                    return None
                self._order = record
        self.version += 1
        return record

    @property
    def revoked(self) -> frozenset[PeerId]:
        """The peers and invitations that the owner revoked, as far as this node has heard."""
        return frozenset(self._revocations)

    def reason_against(self, peer: PeerId) -> str:
        """Why this node's plans leave a peer out; "" where the owner did not revoke it."""
        return f"the run's owner revoked {short(peer)}" if peer in self._revocations else ""

    @property
    def recovery(self) -> Recovery | None:
        """The recovery with the highest serial."""
        return self.recoveries[-1] if self._recoveries else None

    @property
    def recoveries(self) -> tuple[Recovery, ...]:
        """Every recovery, the one that counts last."""
        messages = [self._recoveries[serial].message for serial in sorted(self._recoveries)]
        return tuple(message for message in messages if isinstance(message, Recovery))

    @property
    def next_serial(self) -> int:
        """The serial of the owner's next recovery."""
        return self.recovery.serial + 1 if self.recovery is not None else 1

    @property
    def order(self) -> TrainingOrder | None:
        """The order with the highest serial."""
        if self._order is None or not isinstance(self._order.message, TrainingOrder):
            return None
        return self._order.message

    def next_order(self, action: OrderAction) -> TrainingOrder | None:
        """Return the order that the owner signs next; None where the run does that already."""
        current = self.order
        if current is None:
            return None if action == "start" else TrainingOrder(serial=1, action=action)
        if current.action == action:
            return None
        return TrainingOrder(serial=current.serial + 1, action=action)

    def revocations_for(self, known: Collection[PeerId]) -> tuple[Signed, ...]:
        """The revocations that a plan after a record with `known` revoked peers lists."""
        return tuple(
            self._revocations[subject].signed
            for subject in sorted(self._revocations)
            if subject not in known
        )[:MAX_NOTICES]

    def signed(self) -> tuple[Signed, ...]:
        """Every kept record, the order last.

        Earlier versions do not know orders, and stop to read where one comes.
        """
        order = () if self._order is None else (self._order.signed,)
        return (
            *(self._revocations[subject].signed for subject in sorted(self._revocations)),
            *(self._recoveries[serial].signed for serial in sorted(self._recoveries)),
            *order,
        )

    def encode(self) -> bytes:
        """Encode every kept record, for the disk and for other nodes."""
        return msgspec.msgpack.encode(_Records(self.signed()))

    def add_encoded(self, data: bytes) -> list[OwnerRecord]:
        """Add what another node or the disk gives. Returns the records that were new.

        Raises:
            PeerFault: "malformed" for unreadable bytes, else as `add`.
        """
        try:
            signed = _decoder.decode(data).signed
        except UNREADABLE as error:
            raise PeerFault("malformed", f"not records of an owner: {error}") from None
        return [record for one in signed if (record := self.add(one)) is not None]
