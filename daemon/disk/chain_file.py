"""A run's chain of certificates in one file that only grows, so that adding one is one small write.

A record is its body's length, its number, a digest over both and the body, and the body. Read from
the start, a record with a number not above the last one's cuts the chain back to it: a branch is
left by one append, and there is no instant at which neither branch is on disk.

The first record that is not whole ends the chain. An append that a power cut broke off leaves such
a record at the end of the file: the next append writes over it. Anything else is damage, and
nothing is written over it: the file is as it was until a person decides.
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

_HEAD = Struct("<IQ32s")  # length of the body, number, digest
_SIGNED = Struct("<IQ")
# One append holds one record at most (`MAX_RECORD_BYTES` in `daemon/swarm/chain_sync.py`).
MOST_TORN_BYTES = 16 << 20
# Of branches left behind, before the file is written anew.
MOST_WASTE_BYTES = 4 << 20


def _record(number: int, body: bytes) -> bytes:
    return _HEAD.pack(len(body), number, digest(_SIGNED.pack(len(body), number), body)) + body


def _is_torn(path: Path, start: int, size: int) -> bool:
    """Whether the bytes from `start` on are what a power cut leaves of one append: a record that
    ends too early, or nothing but zeros.
    """
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or start + _HEAD.size + _HEAD.unpack(head)[0] > size:
            return True
        rest = head + file.read(MOST_TORN_BYTES)
        return size - start <= MOST_TORN_BYTES and not any(rest)


def write_chain(path: Path, records: Sequence[tuple[int, bytes]]) -> None:
    """A file of these records, by (number, body), in the place of the one that is there.

    Durable on return. Raises `DiskFull`.
    """
    write_atomically(path, [memoryview(_record(number, body)) for number, body in records])


class ChainFile:
    """Blocking; used by one thread at a time. `report` is told, in words, what was passed over."""

    def __init__(self, path: Path, fault: FaultHook, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._fault = fault
        self._numbers: list[int] = []
        self._places: list[tuple[int, int]] = []  # offset and length of each body
        self._end = 0  # of the last whole record
        self._live_bytes = 0
        # Why the file's rest cannot be read, and where it begins; empty for a whole file and for a
        # torn append.
        self.damage = ""
        self._read_index()

    @property
    def last(self) -> int:
        """The number of the last certificate that can be read; 0 for none."""
        return self._numbers[-1] if self._numbers else 0

    def append(self, number: int, body: bytes) -> None:
        """Durable on return. Raises `DiskFull`; the chain is then as it was."""
        record = _record(number, body)
        if self.damage:
            raise DiskFull(
                f"{self._path} is damaged, and nothing is written over it: {self.damage}"
            )
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
                    # A torn tail, or a branch of a write that failed.
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
        self._take(number, self._end + _HEAD.size, len(body))
        if self._end - self._live_bytes > max(MOST_WASTE_BYTES, self._live_bytes):
            # The certificate itself is safe. A file that cannot be read or written is tried again.
            with suppress(DiskFull, OSError):
                self._compact()

    def read(self, first: int, limit: int) -> list[bytes]:
        """Up to `limit` bodies from number `first` on.

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
                        f"Certificate {number} does not match its digest. Members who ask get those before it; a start asks them for more: "
                        f"{self._path}"
                    )
                    break
                bodies.append(body)
        finally:
            os.close(handle)
        return bodies

    def records(self) -> list[tuple[int, bytes]]:
        """Every record up to the first that cannot be read, by (number, body)."""
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
                self._take(number, self._end + _HEAD.size, length)
            if self._end < size:
                good = f"behind number {self.last}" if self._numbers else "from the first on"
                if _is_torn(self._path, self._end, size):
                    self._report(
                        f"The certificates are damaged {good}: an append was broken off. Other members are asked for what follows, and it is"
                        f" written anew: {self._path}"
                    )
                else:
                    self.damage = f"what follows number {self.last}, at byte {self._end:,} of {size:,}, does not match its digest"
                    self._report(
                        f"The certificates are damaged {good}, at byte {self._end:,}: {self._path}"
                    )

    def _take(self, number: int, offset: int, length: int) -> None:
        keep = bisect_left(self._numbers, number)
        self._live_bytes -= sum(_HEAD.size + size for _, size in self._places[keep:])
        del self._numbers[keep:], self._places[keep:]
        self._numbers.append(number)
        self._places.append((offset, length))
        self._live_bytes += _HEAD.size + length
        self._end = offset + length

    def _forget_lost(self, size: int, number: int) -> None:
        """Somebody removed the file or cut it to `size` bytes while it was in use.

        Go on behind what is left.

        A hole of zeros in its place would be damage that stops the next start. A chain with a gap
        is read from the checkpoint on, as that of a node that joined late.
        """
        kept = sum(offset + length <= size for offset, length in self._places)
        del self._numbers[kept:], self._places[kept:]
        self._live_bytes = sum(_HEAD.size + length for _, length in self._places)
        self._end = sum(self._places[-1]) if self._places else 0
        self._report(
            f"The certificates were removed or cut short while the node ran. Those up to number {self.last} are left, and the file goes on"
            f" with number {number}. The members of the run hold the others: {self._path}"
        )

    def _compact(self) -> None:
        """Write the living records into a new file: the branches left behind have grown larger than
        the chain.
        """
        bodies = self.read(0, len(self._numbers))
        if len(bodies) != len(self._numbers):
            # Damage found just now: nothing is thrown away.
            return
        numbers = list(self._numbers)
        records = [_record(number, body) for number, body in zip(numbers, bodies, strict=True)]
        write_atomically(self._path, [memoryview(record) for record in records], self._fault)
        self._numbers.clear()
        self._places.clear()
        self._end = self._live_bytes = 0
        for number, body in zip(numbers, bodies, strict=True):
            self._take(number, self._end + _HEAD.size, len(body))
