"""The alert with which a record opener answers each violation of RFC 8446."""

from __future__ import annotations

import struct

import pytest

from daemon.network.tls.control_messages import RecordError
from daemon.network.tls.record_opener import RecordOpener
from daemon.network.tls.record_sealer import RecordSealer
from daemon.network.tls.records import HEADER_BYTES, RECORD_BYTES, RecordBuffer
from tests.daemon.network.tls_records import AES_256, SECRET, sealed

DATA, HANDSHAKE, ALERT = b"\x17", b"\x16", b"\x15"
TICKET = b"\x04\x00\x01\x00" + bytes(256)


def alert_for(wire: bytes, *, limit: int = RECORD_BYTES, from_server: bool = True) -> int | None:
    """The alert with which an opener answers `wire`."""
    opener = RecordOpener(AES_256, SECRET, limit=limit, from_server=from_server)
    buffer, have = RecordBuffer(len(wire) // RECORD_BYTES + 2), len(wire)
    buffer.memory[:have] = wire
    try:
        while have:
            used, size = opener.open(buffer, have, memoryview(bytearray(1 << 17)))
            assert used or size, "the opener waits for more"
            buffer.memory[: have - used] = bytes(buffer.memory[used:have])
            have -= used
    except RecordError as refused:
        return refused.alert
    raise AssertionError("the opener accepted everything")


@pytest.mark.parametrize(
    ("wire", "alert"),
    [
        (b"\x16\x03\x03\x00\x20" + bytes(32), 10),
        (b"\x15\x03\x03\x00\x02\x02\x28", 10),
        (b"\x17\x03\x03\x41\x01", 22),
        (b"\x17\x03\x03\x00\x10" + bytes(16), 20),
        (sealed(1, b"a" + DATA), 20),
        (sealed(0, bytes(20)), 10),
        (sealed(0, bytes(RECORD_BYTES + 1) + DATA), 22),
        (sealed(0, b"a" + DATA + bytes(RECORD_BYTES)), 22),
        (sealed(0, HANDSHAKE), 10),
        (sealed(0, b"\x01\x14"), 10),
        (sealed(0, b"\x02" + ALERT), 50),
        (sealed(0, b"\x02\x28" + ALERT), None),
        (sealed(0, b"\x18\0\0\1\2" + HANDSHAKE), 47),
        (sealed(0, b"\x18\0\0\2\0\0" + HANDSHAKE), 50),
        (sealed(0, b"\x18\0\0\1\0\4" + HANDSHAKE), 10),
        (sealed(0, b"\x01\0\0\0" + HANDSHAKE), 10),
        (sealed(0, b"\x04\xff\xff\xff" + HANDSHAKE), 47),
        (sealed(0, TICKET[:9] + HANDSHAKE) + sealed(1, b"a" + DATA), 10),
        (sealed(0, TICKET[:3] + HANDSHAKE) + sealed(1, b"\x01\0" + ALERT), 10),
        (sealed(0, TICKET[:9] + HANDSHAKE) + sealed(1, bytes(RECORD_BYTES) + DATA), 10),
        (sealed(0, TICKET[:9] + HANDSHAKE) + sealed(1, DATA), 10),
    ],
)
def test_record_opener_names_the_alert_for_each_fault(wire: bytes, alert: int | None) -> None:
    assert alert_for(wire) == alert


def test_record_opener_accepts_tickets_from_a_server_only() -> None:
    assert alert_for(sealed(0, TICKET + HANDSHAKE), from_server=False) == 10


def test_record_opener_counts_padding_up_to_the_bound() -> None:
    wire = sealed(0, b"a" + DATA + bytes(RECORD_BYTES - 1))
    buffer, target = RecordBuffer(2), memoryview(bytearray(1 << 15))
    buffer.memory[: len(wire)] = wire
    assert RecordOpener(AES_256, SECRET).open(buffer, len(wire), target) == (len(wire), 1)


@pytest.mark.parametrize("limit", [512, 1024, 2048, 4096])
def test_records_obey_a_negotiated_limit(limit: int) -> None:
    content = bytes(3 * limit + 7)
    wire = b"".join(
        RecordSealer(AES_256, SECRET, limit=limit).data(memoryview(content), RecordBuffer(1))
    )
    sizes = []
    while wire:
        (size,) = struct.unpack_from(">H", wire, 3)
        sizes.append(size - 17)
        wire = wire[HEADER_BYTES + size :]
    assert sizes == [limit, limit, limit, 7]
    assert alert_for(sealed(0, bytes(limit + 1) + DATA), limit=limit) == 22
    full = RecordSealer(AES_256, SECRET).data(memoryview(bytes(RECORD_BYTES)), RecordBuffer(1))
    assert alert_for(b"".join(full), limit=limit) == 22
