"""Fresh memory for an encoding, filled in place.

A page that is touched for the first time costs a fault, 3.5 microseconds on the test machine's
virtual CPUs: 40 MB of fresh bytes take 37 ms, which is six times as long as encoding into them.
Asked for large pages (as numpy asks for its arrays) they take 8.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache

import numpy as np

from protocol.codec.base import Bytes8

# From here on large pages are asked for, as numpy does: two of 2 MiB.
LARGE_BYTES = 1 << 22

_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
"""CPython's way to make bytes that their maker fills before anybody else sees them."""


_WRITABLE = 0x200  # PyBUF_WRITE
_view_of = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)


def fresh_bytes(size: int) -> tuple[bytes, Bytes8]:
    """Bytes of unspecified contents and a view to fill them through, shape (size,), which does not
    keep them alive.

    Give the bytes away only when they are filled, and the view to nobody.
    """
    # CPython shares the bytes of length 0 and 1.
    if size < 2:
        raise ValueError(f"no encoding has {size} bytes to be filled")
    data: bytes = _new_bytes(None, size)
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    assert address is not None
    if size >= LARGE_BYTES:
        _ask_for_large_pages(address, size)
    return data, np.frombuffer(_view_of(address, size, _WRITABLE), np.uint8)


def _ask_for_large_pages(address: int, size: int) -> None:
    """Advice to the kernel, Linux's alone: whether it takes it makes no difference but in time."""
    advise = _madvise()
    if advise is not None:
        start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(
            ctypes.c_void_p(start),
            ctypes.c_size_t(address + size - start),
            ctypes.c_int(mmap.MADV_HUGEPAGE),
        )


@cache
def _madvise() -> ctypes._NamedFuncPointer | None:
    return ctypes.CDLL(None).madvise if hasattr(mmap, "MADV_HUGEPAGE") else None
