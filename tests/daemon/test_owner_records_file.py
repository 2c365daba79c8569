"""The file of the owner's records: no writer loses what another one signed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.home.owned_run import OwnedRun
from daemon.home.owner_order import SignedOrder, sign_order
from daemon.home.run_membership import (
    add_owner_record,
    load_owner_records,
    save_owner_records,
)
from daemon.node.run_choice import seal_run
from protocol.identity import Signer
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.envelope import sign
from protocol.messages.membership import Revocation, TrainingOrder
from protocol.ports.disk import DiskFull
from protocol.run.manifest import Manifest

OWNER, OTHER = Signer(bytes(32)), Signer(bytes([1]) * 32)
SIGNED = seal_run(Manifest(name="run", task="none", rules=4), OWNER)
OWNED = OwnedRun(signed=SIGNED, signer=OWNER)


def test_save_keeps_what_a_command_wrote_since_the_last_look(tmp_path: Path) -> None:
    records = OwnerRecords(SIGNED.run, OWNER.peer)
    records.add(sign(OWNER, SIGNED.run, TrainingOrder(serial=1, action="pause")))
    revocation = sign(OWNER, SIGNED.run, Revocation(subject=OTHER.peer))
    assert add_owner_record(tmp_path, SIGNED, revocation)
    save_owner_records(tmp_path, records, SIGNED.run)
    kept = load_owner_records(tmp_path, SIGNED)
    assert kept.revoked == records.revoked == {OTHER.peer}
    assert kept.order is not None


def test_orders_of_many_writers_have_a_serial_each(tmp_path: Path) -> None:
    def order(number: int) -> SignedOrder:
        return sign_order(tmp_path, OWNED, "pause" if number % 2 else "stop")

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(order, range(40)))
    serials = [one.serial for one in made if one.signed is not None]
    assert sorted(serials) == list(range(1, len(serials) + 1))
    last = load_owner_records(tmp_path, SIGNED).order
    assert last is not None
    assert last.serial == max(serials)


def test_a_home_that_cannot_be_locked_is_reported(tmp_path: Path) -> None:
    (tmp_path / "runs").write_bytes(b"no folder")
    with pytest.raises(DiskFull):
        sign_order(tmp_path, OWNED, "pause")
