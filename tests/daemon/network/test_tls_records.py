"""TLS 1.3 records: the RFC's own example, both ends ours, and damaged records."""

from __future__ import annotations

import os
import random

import pytest

from daemon.network.tls import record_opener
from daemon.network.tls.control_messages import RecordError
from daemon.network.tls.record_opener import MAX_IDLE_RECORDS, RecordOpener
from daemon.network.tls.record_sealer import RecordSealer
from daemon.network.tls.records import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    PIECE_BYTES,
    PIECE_RECORDS,
    RECORD_BYTES,
    RecordBuffer,
)
from tests.daemon.network.tls_records import AES_128, AES_256, SECRET, opened, sealed

# The example of RFC 8448, section 3.

CLIENT_SECRET = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
CLIENT_DATA = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8"
    "a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4"
)
CLIENT_CLOSE = bytes.fromhex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3")


def test_the_example_of_the_rfc_is_sealed_bit_by_bit() -> None:
    sealer = RecordSealer(AES_128, CLIENT_SECRET)
    assert b"".join(sealer.data(memoryview(bytes(range(50))), RecordBuffer(1))) == CLIENT_DATA
    assert sealer.close() == CLIENT_CLOSE


def test_the_example_of_the_rfc_is_opened() -> None:
    opener = RecordOpener(AES_128, CLIENT_SECRET)
    assert opened(opener, CLIENT_DATA + CLIENT_CLOSE) == bytes(range(50))
    assert opener.ended


@pytest.mark.parametrize("seed", range(40))
def test_sealed_content_is_opened_in_any_pieces(seed: int) -> None:
    # The chance chooses the case and is no secret.
    chance = random.Random(seed)
    suite = chance.choice([AES_128, AES_256])
    sealer, opener, wire, content = (
        RecordSealer(suite, SECRET),
        RecordOpener(suite, SECRET),
        b"",
        b"",
    )
    for _ in range(chance.randrange(1, 6)):
        piece = chance.randbytes(
            chance.choice(
                [
                    0,
                    1,
                    5,
                    RECORD_BYTES - 1,
                    RECORD_BYTES,
                    RECORD_BYTES + 1,
                    3 * RECORD_BYTES,
                    70_001,
                ]
            )
        )
        wire += b"".join(sealer.data(memoryview(piece), RecordBuffer(8)))
        content += piece
        if chance.random() < 0.3:
            wire += sealer.update()
    wire += sealer.close()
    most = chance.choice([7, 1_000, 40_000, 1 << 20])
    room = (
        chance.choice([1, 100, RECORD_BYTES, RECORD_BYTES + 1, 100_000])
        if len(content) < 50_000
        else 100_000
    )
    assert (
        opened(
            opener,
            wire,
            lambda: chance.randrange(1, most + 1),
            lambda: chance.randrange(1, room + 1),
        )
        == content
    )
    assert opener.ended


def test_padding_is_removed() -> None:
    # With 39 bytes of padding, this record is as long as a full one.
    full = bytes(RECORD_BYTES - 40) + b"x"
    wire = (
        sealed(0, b"abc\x17" + bytes(300))
        + sealed(1, full + b"\x17" + bytes(39))
        + sealed(2, b"d\x17")
    )
    assert (
        opened(RecordOpener(AES_256, SECRET), wire, rooms=lambda: 1 << 17) == b"abc" + full + b"d"
    )


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (bytes(20), "without content"),
        (b"\x02\x28\x15", "gave up: handshake failure"),
        (b"\x02\x74\x15", "gave up: certificate required"),
        (b"\x02\xfe\x15", "gave up: alert 254"),
        (b"\x02\x15", "of kind 21"),
        (b"\x01\x14", "of kind 20"),
        (b"\x16", "of kind 22"),
        (b"\x18\0\0\1\2\x16", "kind 24 after the handshake"),
        (b"\x18\0\0\1\0\4\x16", "kind 24 after the handshake"),
        (b"\0\0\0\0\x16", "kind 0 after the handshake"),
        (bytes(RECORD_BYTES + 1) + b"\x17", f"a record of {RECORD_BYTES + 1} bytes"),
    ],
)
def test_a_record_with_forbidden_content_is_refused(inner: bytes, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        opened(RecordOpener(AES_256, SECRET), sealed(0, inner))


@pytest.mark.parametrize(
    "wire",
    [
        b"\x16\x03\x03\x00\x20" + bytes(32),
        b"\x17\x03\x03\x00\x10" + bytes(16),
        b"\x17\x03\x03\x41\x01",
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_bytes_that_are_not_a_record_are_refused(wire: bytes) -> None:
    with pytest.raises(RecordError, match="a record of kind"):
        opened(RecordOpener(AES_256, SECRET), wire)


def test_changed_missing_and_repeated_records_are_refused() -> None:
    first, second = sealed(0, bytes(RECORD_BYTES) + b"\x17"), sealed(1, b"b" * 50 + b"\x17")
    assert opened(RecordOpener(AES_256, SECRET), first + second) == bytes(RECORD_BYTES) + b"b" * 50
    # The chance chooses the bit and is no secret.
    chance = random.Random(3)
    for wire in (second, first + first, first + second + second):
        with pytest.raises(RecordError, match="damaged or forged"):
            opened(RecordOpener(AES_256, SECRET), wire)
    for _ in range(100):
        damaged = bytearray(first + second)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        with pytest.raises(RecordError):
            # A damaged header may announce more bytes, and here they follow.
            opened(RecordOpener(AES_256, SECRET), bytes(damaged) + bytes(20_000))


def test_records_without_data_are_accepted_for_a_while() -> None:
    nothing = [sealed(i, b"\x17") for i in range(MAX_IDLE_RECORDS)]
    assert (
        opened(
            RecordOpener(AES_256, SECRET), b"".join(nothing) + sealed(MAX_IDLE_RECORDS, b"a\x17")
        )
        == b"a"
    )
    with pytest.raises(RecordError, match="in a row without data"):
        opened(RecordOpener(AES_256, SECRET), b"".join(nothing) + sealed(MAX_IDLE_RECORDS, b"\x17"))


def test_a_message_may_arrive_in_parts_and_is_bounded() -> None:
    ticket = b"\x04\x00\x01\x00" + bytes(256)
    wire = sealed(0, ticket[:3] + b"\x16") + sealed(1, ticket[3:] + b"\x16") + sealed(2, b"a\x17")
    assert opened(RecordOpener(AES_256, SECRET), wire) == b"a"
    with pytest.raises(RecordError, match="a handshake message of"):
        opened(
            RecordOpener(AES_256, SECRET),
            b"".join(sealed(i, b"\x04\xff\xff\xff" + bytes(16_000) + b"\x16") for i in range(5)),
        )


def test_small_records_let_other_tasks_run() -> None:
    wire = b"".join(sealed(i, b"a\x17") for i in range(record_opener.TURN_RECORDS + 5))
    buffer = RecordBuffer(2)
    buffer.memory[: len(wire)] = wire
    used, size = RecordOpener(AES_256, SECRET).open(
        buffer, len(wire), memoryview(bytearray(1 << 16))
    )
    assert size == record_opener.TURN_RECORDS
    assert used == size * (OVERHEAD_BYTES + 1)


def test_a_record_announces_its_length() -> None:
    wire = b"".join(
        RecordSealer(AES_256, SECRET).data(memoryview(bytes(RECORD_BYTES + 1)), RecordBuffer(1))
    )
    assert len(wire) == RECORD_BYTES + 1 + 2 * OVERHEAD_BYTES
    assert wire[:HEADER_BYTES] == b"\x17\x03\x03\x40\x11"


def test_a_piece_of_the_shortest_records_is_written_by_one_call() -> None:
    content = memoryview(bytes(PIECE_BYTES))
    sealer = RecordSealer(AES_128, SECRET[:32], limit=512)
    pieces = [sealer.update(), *sealer.data(content, RecordBuffer(PIECE_RECORDS))]
    assert len(pieces) <= os.sysconf("SC_IOV_MAX")
    assert sum(map(len, pieces[1:])) == PIECE_BYTES + PIECE_BYTES // 512 * OVERHEAD_BYTES
