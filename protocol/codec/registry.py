"""The registry of codecs: the one place that says what others need to know of a codec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import msgspec

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec.base import Codec
from protocol.codec.blocks import Int4, Int8
from protocol.codec.compiled import CompiledCodec
from protocol.codec.floats import BFloat16, Float16, Float32
from protocol.codec.kernel import KernelLoops, KernelStatus, installed
from protocol.codec.topk import TopK
from protocol.errors import UserError


class CodecEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One codec, and what others need to know of it."""

    # The numpy implementation, which defines the bytes.
    reference: Codec
    # One line for people.
    description: str
    # The largest error of an element, as a share of the largest magnitude in its chunk. It holds
    # for magnitudes that the format can hold.
    max_error: float
    # Whether `kernel.c` has loops under the codec's name.
    has_loops: bool = False

    @property
    def name(self) -> str:
        return self.reference.name

    @property
    def bits_per_element(self) -> float:
        """Bits of one element in a whole chunk."""
        return 8 * self.reference.size(CHUNK_ELEMENTS) / CHUNK_ELEMENTS

    @property
    def is_dense(self) -> bool:
        """Whether every element travels, so that a mean travels in the same codec."""
        return self.reference.result is self.reference


BUILT_IN = (
    CodecEntry(
        reference=Float32(),
        description="every value as it is",
        max_error=0.0,
        has_loops=True,
    ),
    CodecEntry(
        reference=BFloat16(),
        description="the upper half of a float32: its range, 8 bits of precision",
        max_error=2.0**-8,
        has_loops=True,
    ),
    CodecEntry(
        reference=Float16(),
        description="IEEE half precision: 11 bits of precision, from 6e-8 to 65504",
        max_error=2.0**-11,
        has_loops=True,
    ),
    CodecEntry(
        reference=Int8(),
        description="blocks of 256 share a scale; half a step is 1/254 of a block's peak",
        max_error=0.5 / 127 * (1 + 2.0**-8),
        has_loops=True,
    ),
    CodecEntry(
        reference=Int4(),
        description="blocks of 64 share a scale; half a step is 1/16 of a block's peak",
        max_error=1.03 / 8,
        has_loops=True,
    ),
    CodecEntry(
        reference=TopK("topk", 64, result=TopK("topk_result", 16)),
        description="the 64 largest of 4096 elements; a mean travels as 256 of 4096",
        max_error=1.0,
    ),
)


@cache
def _kernel() -> KernelStatus:
    return installed([entry.reference for entry in entries() if entry.has_loops])


def _used(entry: CodecEntry) -> Codec:
    """Return the implementation that this process uses."""
    return CompiledCodec(entry.reference, _kernel) if entry.has_loops else entry.reference


_entries = {entry.name: entry for entry in BUILT_IN}
_codecs = {entry.name: _used(entry) for entry in BUILT_IN}


@contextmanager
def registered(entry: CodecEntry) -> Iterator[Codec]:
    """Register one more codec for the duration of a `with` block.

    Raises:
        ValueError: if the name is taken.
    """
    if entry.name in _entries:
        raise ValueError(f"a codec named {entry.name!r} is registered already")
    _entries[entry.name], _codecs[entry.name] = entry, _used(entry)
    _kernel.cache_clear()
    try:
        yield _codecs[entry.name]
    finally:
        del _entries[entry.name], _codecs[entry.name]
        _kernel.cache_clear()


def entries() -> tuple[CodecEntry, ...]:
    """Return all codecs, in the order in which they were registered."""
    return tuple(_entries.values())


def entry_named(name: str) -> CodecEntry:
    """Return the entry of a codec.

    Raises:
        UserError: "CODEC", with the known names, for an unknown name.
    """
    if name not in _entries:
        raise UserError(
            "CODEC",
            f"Unknown codec {name!r}; known: {', '.join(_entries)}.",
            fix="choose one of them in the manifest, or install a newer hypergpu",
            exit_code=2,
        )
    return _entries[name]


def codec_named(name: str) -> Codec:
    """Return the codec that this process uses under `name`. Raises as `entry_named`."""
    return _codecs[entry_named(name).name]


def chunk_bytes(codec: Codec) -> int:
    """Return the bytes of one whole chunk, which is the leaf size of a contribution's digest."""
    return codec.size(CHUNK_ELEMENTS)


def implementation() -> str:
    """Return "compiled", or "numpy: " and the reason."""
    return _kernel().reason


def loops() -> KernelLoops | None:
    """Return the compiled loops, or None if numpy does the work."""
    return _kernel().loops
