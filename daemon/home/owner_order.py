"""Signs an order of the run's owner, and keeps it in the owner's home."""

from __future__ import annotations

from pathlib import Path

import msgspec

from daemon.home.owned_run import OwnedRun
from daemon.home.run_membership import (
    load_owner_records,
    owner_records_turn,
    write_owner_records,
)
from protocol.messages.base import Signed
from protocol.messages.envelope import sign
from protocol.messages.membership import OrderAction


class SignedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The order that counts now. `signed` is None where the run did that before."""

    action: OrderAction
    serial: int
    signed: Signed | None


def sign_order(home: Path, owned: OwnedRun, action: OrderAction) -> SignedOrder:
    """Sign an order with the next serial, and keep it in the home.

    A running node or observer on the home finds it there within a second, and passes it on. An
    order for what the run does already signs nothing.

    Raises:
        DiskFull: where the home cannot be written.
    """
    with owner_records_turn(home, owned.signed.run):
        records = load_owner_records(home, owned.signed)
        message = records.next_order(action)
        if message is None:
            serial = records.order.serial if records.order is not None else 0
            return SignedOrder(action=action, serial=serial, signed=None)
        signed = sign(owned.signer, owned.signed.run, message)
        records.add(signed)
        write_owner_records(home, records, owned.signed.run)
    return SignedOrder(action=action, serial=message.serial, signed=signed)
