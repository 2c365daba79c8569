"""Fresh memory for an encoding, filled in place.

The first access to a page costs a fault, 3.5 microseconds on the test machine's virtual CPUs. So 40
MB of fresh bytes take 37 ms, six times as long as encoding into them. With large pages, which numpy
uses for its arrays, they take 8 ms.
"""

from __future__ import annotations

import ctypes
import mmap
from functools import cache

import numpy as np

from protocol.codec.base import Bytes8

LARGE_BYTES = 1 << 22
"""From this size on, large pages are requested, as numpy does: two of 2 MiB."""


_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)
"""CPython's function that makes bytes which the caller fills before any other code sees them."""


_WRITABLE = 0x200  # PyBUF_WRITE
_view_of = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)


SMALLEST_FRESH = 2
"""CPython shares all bytes objects of length 0 and 1, so these cannot be filled in place."""


def fresh_bytes(size: int) -> tuple[bytes, Bytes8]:
    """Return bytes with unspecified contents, and a view to fill them, shape (size,).

    The view does not keep the bytes alive. Fill the bytes before you pass them on, and keep the
    view to yourself.
    """
    if size < SMALLEST_FRESH:
        raise ValueError(f"an encoding of {size} bytes cannot be filled in place")
    data: bytes = _new_bytes(None, size)
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    assert address is not None
    if size >= LARGE_BYTES:
        _ask_for_large_pages(address, size)
    return data, np.frombuffer(_view_of(address, size, _WRITABLE), np.uint8)


def _ask_for_large_pages(address: int, size: int) -> None:
    """Advise Linux's kernel to use large pages. Only the speed depends on its answer."""
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
