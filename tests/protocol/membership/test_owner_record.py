"""The owner's records: revocations and recoveries that a node has heard."""

from __future__ import annotations

import msgspec
import pytest

from protocol.digest import digest
from protocol.errors import PeerFault
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.base import Message, Signed
from protocol.messages.envelope import sign
from protocol.messages.membership import (
    MAX_NOTICES,
    Leave,
    OrderAction,
    Recovery,
    Revocation,
    TrainingOrder,
)
from tests.protocol.rounds import people

OWNER, FRIEND, *OTHERS = people(14)
RUN = digest(b"run")


def records() -> OwnerRecords:
    return OwnerRecords(RUN, OWNER.peer)


def by_owner(message: Message) -> Signed:
    return sign(OWNER, RUN, message)


def revocation(peer: str) -> Signed:
    return by_owner(Revocation(subject=peer))


def recovery(serial: int) -> Signed:
    tip = digest(bytes([serial]))
    return by_owner(Recovery(serial=serial, tip=tip, number=serial, voters=(OWNER.peer,)))


def test_a_record_is_kept_once() -> None:
    kept = records()
    assert kept.add(revocation(FRIEND.peer)) is not None
    assert kept.add(revocation(FRIEND.peer)) is None
    assert kept.revoked == {FRIEND.peer}
    assert len(kept) == kept.version == 1


def test_the_recovery_with_the_highest_serial_counts() -> None:
    kept = records()
    assert (kept.recovery, kept.next_serial) == (None, 1)
    for serial, new in ((2, True), (1, True), (2, False)):
        assert (kept.add(recovery(serial)) is not None) == new
        assert kept.recovery is not None
        assert (kept.recovery.serial, kept.next_serial) == (2, 3)
    assert kept.add(recovery(5)) is not None
    assert [each.serial for each in kept.recoveries] == [1, 2, 5], (
        "certificates after an earlier recovery name it as their parent"
    )
    assert (kept.recovery.serial, kept.next_serial) == (5, 6)


@pytest.mark.parametrize(
    ("signed", "reason"),
    [
        (sign(FRIEND, RUN, Revocation(subject=OWNER.peer)), "not_owner"),
        (sign(OWNER, digest(b"other"), Revocation(subject=FRIEND.peer)), "unsigned"),
        (by_owner(Leave(tip=RUN, serial=1)), "malformed"),
        (msgspec.structs.replace(revocation(FRIEND.peer), payload=b"\x90"), "unsigned"),
    ],
)
def test_nobody_else_makes_records(signed: Signed, reason: str) -> None:
    with pytest.raises(PeerFault) as fault:
        records().add(signed)
    assert fault.value.reason == reason


def test_a_run_without_an_owner_has_no_records() -> None:
    with pytest.raises(PeerFault, match="not the owner"):
        OwnerRecords(RUN, "").add(revocation(FRIEND.peer))


def test_records_survive_the_disk_and_reach_other_nodes() -> None:
    kept, other = records(), records()
    for signed in (revocation(FRIEND.peer), recovery(3), revocation(OTHERS[0].peer)):
        kept.add(signed)
    assert len(other.add_encoded(kept.encode())) == 3
    assert other.signed() == kept.signed()
    assert other.add_encoded(kept.encode()) == []
    for noise in (b"", b"\xc1", b"\x91\x91\x01"):
        with pytest.raises(PeerFault, match="not records of an owner"):
            other.add_encoded(noise)


def test_a_plan_lists_a_few_revocations_that_its_parent_does_not_know() -> None:
    kept = records()
    for other in OTHERS:
        kept.add(revocation(other.peer))
    listed = kept.revocations_for(())
    assert len(listed) == MAX_NOTICES < len(OTHERS)
    known = [other.peer for other in OTHERS[:-1]]
    assert [signed.payload for signed in kept.revocations_for(known)] == [
        revocation(OTHERS[-1].peer).payload
    ]


def order(serial: int, action: OrderAction = "pause", signer: int = 0) -> Signed:
    message = TrainingOrder(serial=serial, action=action)
    return sign((OWNER, FRIEND)[signer], RUN, message)


def test_the_order_with_the_highest_serial_counts_and_replaces_the_others() -> None:
    kept = records()
    assert kept.order is None
    for serial, action, new in ((2, "pause", True), (1, "stop", False), (3, "start", True)):
        assert (kept.add(order(serial, action)) is not None) == new
    assert kept.order == TrainingOrder(serial=3, action="start")
    assert len(kept) == 1
    with pytest.raises(PeerFault, match="not the owner"):
        kept.add(order(4, "stop", signer=1))
    assert kept.order.serial == 3


def test_an_order_comes_last_in_what_others_read() -> None:
    kept = records()
    for record in (order(1), revocation(FRIEND.peer), recovery(1)):
        kept.add(record)
    assert kept.signed()[-1] == order(1)
    other = records()
    assert len(other.add_encoded(kept.encode())) == 3
    assert other.order == kept.order


def test_the_next_order_is_none_where_the_run_does_that_already() -> None:
    kept = records()
    assert kept.next_order("start") is None
    first = kept.next_order("pause")
    assert first == TrainingOrder(serial=1, action="pause")
    kept.add(by_owner(first))
    assert kept.next_order("pause") is None
    assert kept.next_order("stop") == TrainingOrder(serial=2, action="stop")
    assert kept.next_order("start") == TrainingOrder(serial=2, action="start")
