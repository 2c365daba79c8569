"""A FUSE file system in memory without hard links, for tests. It needs root and /dev/fuse.

Like many FUSE servers, it refuses link(2) and the flags of rename, so only O_EXCL remains. The
structures are those of linux/fuse.h, version 7.31.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

IN, OUT = Struct("<IIQQIIII"), Struct("<IiQ")
ATTRIBUTES = Struct("<6Q10I")
ENTRY = Struct("<4Q2I")
MAJOR, MINOR = 7, 31
ROOT = 1
MNT_DETACH = 2
REQUEST_BYTES = 1 << 20
ENTRY_TYPE = {stat.S_IFDIR: 4, stat.S_IFREG: 8}

INIT, LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, OPEN, READ, WRITE = (
    26,
    1,
    2,
    3,
    4,
    9,
    10,
    14,
    15,
    16,
)
STATFS, RELEASE, FSYNC, FLUSH, OPENDIR, READDIR, RELEASEDIR, CREATE, BATCH_FORGET, INTERRUPT = (
    17,
    18,
    20,
    25,
    27,
    28,
    29,
    35,
    42,
    36,
)
NO_ANSWER = (FORGET, BATCH_FORGET, INTERRUPT)


class Refused(Exception):
    """The server answers the request with this error number."""


class Node:
    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.data = bytearray()
        self.names: dict[bytes, int] = {}


class PlainFuse:
    """Answers requests until the mount ends. `asked` counts opcodes."""

    def __init__(self, handle: int) -> None:
        self.asked: dict[int, int] = {}
        self._handle = handle
        self._nodes = {ROOT: Node(stat.S_IFDIR | 0o755)}
        self._answers: dict[int, Callable[[int, bytes], bytes]] = {
            INIT: lambda _, body: Struct("<4I2H2I2H8I").pack(
                MAJOR,
                MINOR,
                int.from_bytes(body[8:12], "little"),
                0,
                1,
                1,
                1 << 17,
                1,
                0,
                0,
                *[0] * 8,
            ),
            LOOKUP: lambda number, body: self._entry(self._child(number, body[:-1])),
            GETATTR: lambda number, _: self._attributes_answer(number),
            SETATTR: self._change,
            MKDIR: lambda number, body: self._entry(
                self._make(number, body[8:-1], stat.S_IFDIR | 0o700)
            ),
            UNLINK: self._unlink,
            OPEN: lambda *_: bytes(16),
            OPENDIR: lambda *_: bytes(16),
            READ: self._read,
            WRITE: self._write,
            STATFS: lambda *_: Struct("<5Q4I6I").pack(
                1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096, 0, *[0] * 6
            ),
            RELEASE: lambda *_: b"",
            RELEASEDIR: lambda *_: b"",
            FSYNC: lambda *_: b"",
            FLUSH: lambda *_: b"",
            READDIR: self._list,
            CREATE: lambda number, body: (
                self._entry(self._make(number, body[16:-1], stat.S_IFREG | 0o600)) + bytes(16)
            ),
        }

    def run(self) -> None:
        while True:
            try:
                request = os.read(self._handle, REQUEST_BYTES)
            except OSError as ended:
                # The request was interrupted before the server read it.
                if ended.errno == errno.ENOENT:
                    continue
                return
            _, opcode, unique, number, *_ = IN.unpack_from(request)
            self.asked[opcode] = self.asked.get(opcode, 0) + 1
            if opcode in NO_ANSWER:
                continue
            error, body = 0, b""
            try:
                if opcode not in self._answers:
                    # Links, renames with flags, and requests that no test needs.
                    raise Refused(errno.ENOSYS)
                body = self._answers[opcode](number, request[IN.size :])
            except Refused as refused:
                error = int(refused.args[0])
            os.write(self._handle, OUT.pack(OUT.size + len(body), -error, unique) + body)

    def _child(self, number: int, name: bytes) -> int:
        if name not in self._nodes[number].names:
            raise Refused(errno.ENOENT)
        return self._nodes[number].names[name]

    def _make(self, number: int, name: bytes, mode: int) -> int:
        made = max(self._nodes) + 1
        self._nodes[made] = Node(mode)
        self._nodes[number].names[name] = made
        return made

    def _unlink(self, number: int, body: bytes) -> bytes:
        self._child(number, body[:-1])
        del self._nodes[number].names[body[:-1]]
        return b""

    def _change(self, number: int, body: bytes) -> bytes:
        valid, size = int.from_bytes(body[:4], "little"), int.from_bytes(body[16:24], "little")
        # FATTR_SIZE
        if valid & 8:
            data = self._nodes[number].data
            data[:] = data[:size].ljust(size, b"\0")
        return self._attributes_answer(number)

    def _read(self, number: int, body: bytes) -> bytes:
        _, offset, size = Struct("<QQI").unpack_from(body)
        return bytes(self._nodes[number].data[offset : offset + size])

    def _write(self, number: int, body: bytes) -> bytes:
        _, offset, size = Struct("<QQI").unpack_from(body)
        data = self._nodes[number].data
        data[offset : offset + size] = body[40 : 40 + size]
        return Struct("<II").pack(size, 0)

    def _list(self, number: int, body: bytes) -> bytes:
        _, offset, size = Struct("<QQI").unpack_from(body)
        listed = b""
        for place, (name, inode) in enumerate(self._nodes[number].names.items(), 1):
            kind = ENTRY_TYPE[stat.S_IFMT(self._nodes[inode].mode)]
            entry = Struct("<QQII").pack(inode, place, len(name), kind) + name
            entry = entry.ljust(-(-len(entry) // 8) * 8, b"\0")
            if place > offset and len(listed) + len(entry) <= size:
                listed += entry
        return listed

    def _attributes(self, number: int) -> bytes:
        node = self._nodes[number]
        return ATTRIBUTES.pack(
            number,
            len(node.data),
            1,
            *[0] * 6,
            node.mode,
            1,
            os.geteuid(),
            os.getegid(),
            0,
            4096,
            0,
        )

    def _attributes_answer(self, number: int) -> bytes:
        return Struct("<QII").pack(0, 0, 0) + self._attributes(number)

    def _entry(self, number: int) -> bytes:
        return ENTRY.pack(number, 0, 0, 0, 0, 0) + self._attributes(number)


@contextmanager
def mounted(place: Path) -> Iterator[PlainFuse]:
    """Mount a `PlainFuse` at `place` until the block ends.

    Raises `OSError` where this machine does not allow mounts.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = (
            f"fd={handle},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}".encode()
        )
        if libc.mount(b"plain", os.fsencode(place), b"fuse", 0, options):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        server = PlainFuse(handle)
        thread = threading.Thread(target=server.run, name="fuse", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            libc.umount2(os.fsencode(place), MNT_DETACH)
            thread.join(10)
    finally:
        os.close(handle)
