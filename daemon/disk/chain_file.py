"""Stores a run's chain of certificates in one append-only file.

A record holds its body's length, its number, a digest over both and the body, and the body. A
record whose number is not above the last one's cuts the chain back to that number. One append thus
switches branches, and at every instant one of the two branches is on disk.

The first record that is not whole ends the chain. A power cut during an append leaves such a record
at the end of the file, and the next append overwrites it. Any other damage is never overwritten:
the file stays as it is until a person decides.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from struct import Struct

from daemon.disk.atomic import (
    FaultHook,
    disk_full,
    free_bytes,
    make_private_directory,
    sync_directory,
    write_all,
    write_atomically,
)
from protocol.digest import digest
from protocol.ports.disk import DiskFull

# The length of the body, the number, the digest.
_HEAD = Struct("<IQ32s")
_SIGNED = Struct("<IQ")
# An append writes one record at most (`MAX_RECORD_BYTES` in `daemon/swarm/chain_sync.py`).
MOST_TORN_BYTES = 16 << 20
# When the records of abandoned branches are larger than this, the file is compacted.
MOST_WASTE_BYTES = 4 << 20


def _record(number: int, body: bytes) -> bytes:
    return _HEAD.pack(len(body), number, digest(_SIGNED.pack(len(body), number), body)) + body


def _is_torn(path: Path, start: int, size: int) -> bool:
    """Whether the bytes from `start` on look like an append that a power cut broke off.

    That is a record that ends too early, or nothing but zeros.
    """
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or start + _HEAD.size + _HEAD.unpack(head)[0] > size:
            return True
        rest = head + file.read(MOST_TORN_BYTES)
        return size - start <= MOST_TORN_BYTES and not any(rest)


def write_chain(path: Path, records: Sequence[tuple[int, bytes]]) -> None:
    """Replace the file by one with these records, by (number, body).

    Durable on return. Raises `DiskFull`.
    """
    write_atomically(path, [memoryview(_record(number, body)) for number, body in records])


class ChainFile:
    """One run's chain of certificates. Blocking; one thread at a time may use it."""

    def __init__(self, path: Path, fault: FaultHook, report: Callable[[str], None]) -> None:
        """Read the index of the file; `report` gets a sentence for each damage."""
        self._path = path
        self._report = report
        self._fault = fault
        self._numbers: list[int] = []
        # The offset and the length of each body.
        self._places: list[tuple[int, int]] = []
        # Where the last whole record ends.
        self._end = 0
        self._live_bytes = 0
        # Why the rest of the file cannot be read; empty for a whole file and for a torn append.
        self.damage = ""
        self._read_index()

    @property
    def last(self) -> int:
        """The number of the last certificate that can be read, or 0."""
        return self._numbers[-1] if self._numbers else 0

    def append(self, number: int, body: bytes) -> int:
        """Append a certificate, durable on return. Returns the size of its record.

        Raises `DiskFull`; the chain is then unchanged.
        """
        record = _record(number, body)
        if self.damage:
            raise DiskFull(f"{self._path} is damaged and is not overwritten: {self.damage}")
        try:
            make_private_directory(self._path.parent)
            if free_bytes(self._path.parent) < len(record):
                raise disk_full(self._path, len(record))
            existed = self._path.exists()
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(handle).st_size
                if size < self._end:
                    self._forget_lost(size, number)
                if size != self._end:
                    self._fault("cut")
                    # A torn append, or the record of a write that failed.
                    os.ftruncate(handle, self._end)
                os.lseek(handle, self._end, os.SEEK_SET)
                self._fault("append")
                try:
                    write_all(handle, memoryview(record))
                    self._fault("sync")
                    os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, self._end)
                    raise
            finally:
                os.close(handle)
            if not existed:
                self._fault("sync_dir")
                sync_directory(self._path.parent)
        except OSError as error:
            raise disk_full(self._path, len(record), error) from error
        self._add_to_index(number, self._end + _HEAD.size, len(body))
        if self._end - self._live_bytes > max(MOST_WASTE_BYTES, self._live_bytes):
            # The certificate is durable. The next append tries again.
            with suppress(DiskFull, OSError):
                self._compact()
        return len(record)

    def read(self, first: int, limit: int) -> list[bytes]:
        """Return up to `limit` bodies from number `first` on.

        Raises `OSError` where the file cannot be read.
        """
        start = bisect_left(self._numbers, first)
        bodies: list[bytes] = []
        if limit <= 0 or start == len(self._numbers):
            return bodies
        handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for number, (offset, length) in zip(
                self._numbers[start : start + limit],
                self._places[start : start + limit],
                strict=True,
            ):
                record = os.pread(handle, _HEAD.size + length, offset - _HEAD.size)
                body = record[_HEAD.size :]
                if record != _record(number, body):
                    self._report(
                        f"Certificate {number} does not match its digest. Members who ask get the"
                        f" ones before it; the next start asks them for the rest: {self._path}"
                    )
                    break
                bodies.append(body)
        finally:
            os.close(handle)
        return bodies

    def records(self) -> list[tuple[int, bytes]]:
        """Return every record up to the first that cannot be read, by (number, body)."""
        found: list[tuple[int, bytes]] = []
        for number in self._numbers:
            try:
                bodies = self.read(number, 1)
            except OSError as error:
                self.damage = self.damage or f"the file cannot be read ({error.strerror})"
                break
            if not bodies:
                break
            found.append((number, bodies[0]))
        return found

    def _read_index(self) -> None:
        try:
            self._read_whole_records()
        except FileNotFoundError:
            return
        except OSError as error:
            self.damage = f"the file cannot be read ({error.strerror})"
            self._report(f"The certificates cannot be read ({error.strerror}): {self._path}")

    def _read_whole_records(self) -> None:
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while self._end < size:
                head = file.read(_HEAD.size)
                if len(head) < _HEAD.size:
                    break
                length, number, expected = _HEAD.unpack(head)
                if self._end + _HEAD.size + length > size:
                    break
                body = file.read(length)
                if digest(_SIGNED.pack(length, number), body) != expected:
                    break
                self._add_to_index(number, self._end + _HEAD.size, length)
            if self._end < size:
                self._report_tail(size)

    def _report_tail(self, size: int) -> None:
        """Report the bytes behind the last whole record of a file of `size` bytes."""
        where = f"behind number {self.last}" if self._numbers else "from the first on"
        if _is_torn(self._path, self._end, size):
            self._report(
                f"The certificates are damaged {where}: an append was broken off. The node gets the"
                f" rest from other members and writes it again: {self._path}"
            )
            return
        self.damage = (
            f"the record behind number {self.last}, at byte {self._end:,} of {size:,}, does not"
            " match its digest"
        )
        self._report(f"The certificates are damaged {where}, at byte {self._end:,}: {self._path}")

    def _add_to_index(self, number: int, offset: int, length: int) -> None:
        keep = bisect_left(self._numbers, number)
        self._live_bytes -= sum(_HEAD.size + size for _, size in self._places[keep:])
        del self._numbers[keep:], self._places[keep:]
        self._numbers.append(number)
        self._places.append((offset, length))
        self._live_bytes += _HEAD.size + length
        self._end = offset + length

    def _forget_lost(self, size: int, number: int) -> None:
        """Continue after the records that are left in a file that was cut to `size` bytes.

        Another program removed or cut the file while it was in use. Writing at the old offset would
        leave a hole of zeros, which is damage that stops the next start. A chain with a gap is read
        from the checkpoint on, like the chain of a node that joined late.
        """
        kept = sum(offset + length <= size for offset, length in self._places)
        del self._numbers[kept:], self._places[kept:]
        self._live_bytes = sum(_HEAD.size + length for _, length in self._places)
        self._end = sum(self._places[-1]) if self._places else 0
        self._report(
            "The certificates were removed or cut short while the node ran. Those up to number"
            f" {self.last} are left, and the file goes on with number {number}. The members of the"
            f" run hold the others: {self._path}"
        )

    def _compact(self) -> None:
        """Write the records of the chain into a new file, without those of abandoned branches."""
        bodies = self.read(0, len(self._numbers))
        if len(bodies) != len(self._numbers):
            # `read` has just found damage, so nothing may be dropped.
            return
        numbers = list(self._numbers)
        records = [_record(number, body) for number, body in zip(numbers, bodies, strict=True)]
        write_atomically(self._path, [memoryview(record) for record in records], self._fault)
        self._numbers.clear()
        self._places.clear()
        self._end = self._live_bytes = 0
        for number, body in zip(numbers, bodies, strict=True):
            self._add_to_index(number, self._end + _HEAD.size, len(body))
