"""The compiled loops of the codecs (`kernel.c`): how they are found, checked against numpy, and
called.

The loops are a plain shared object without Python in it. The installation builds it, and ctypes
calls it: numpy imports ctypes anyway, a call costs a few microseconds against milliseconds of work,
and other threads run meanwhile. A node also works without the loops: if the installation found no
compiler, on a big-endian machine, or with `HYPERGPU_CODECS=numpy`. Loops that make other bytes than
numpy are not used.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

import numpy as np

from protocol.averaging.clip import ClipPart, ClipScale, Doubles
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector, chunk_count
from protocol.codec.base import Bytes8, Codec
from protocol.digest import Buffer

SWITCH = "HYPERGPU_CODECS"

REVISION = 3
"""The revision of what `kernel.c` computes.

A shared object of another revision is not used: the source tree changed after the last
installation. """


LOOPS = ("encode", "check", "decode", "add", "mean", "clipped_mean")
"""What `kernel.c` has for each codec: functions named NAME_encode and so on."""


class KernelLoops:
    """The functions of `kernel.c`.

    Vectors are not empty and satisfy `check_vector`; encodings have the right size. Each method
    returns False if it refused a value or an encoding. The contents of the output are then
    undefined.
    """

    def __init__(self, path: Path) -> None:
        """Load the shared object at `path`. Raises `OSError` if that fails."""
        self.path = path
        self._library = ctypes.CDLL(str(path))

    def encode(self, codec: Codec, values: Vector, over: float, out: Bytes8) -> bool:
        return self._call(
            codec,
            "encode",
            _floats(values),
            _count(values.size),
            _float(over),
            ctypes.c_void_p(out.ctypes.data),
        )

    def check(self, codec: Codec, data: Buffer, elements: int) -> bool:
        return self._call(codec, "check", _address(data), _count(elements))

    def decode(self, codec: Codec, data: Buffer, out: Vector) -> bool:
        return self._call(codec, "decode", _address(data), _count(out.size), _floats(out))

    def add(self, codec: Codec, data: Buffer, weight: float, out: Vector) -> bool:
        return self._call(
            codec, "add", _address(data), _count(out.size), _float(weight), _floats(out)
        )

    def mean(self, codec: Codec, parts: Sequence[tuple[int, Buffer]], out: Vector) -> bool:
        sources = (ctypes.c_void_p * len(parts))(*[_address(data).value for _, data in parts])
        weights = (ctypes.c_float * len(parts))(*[_float(weight).value for weight, _ in parts])
        total = _float(sum(weight for weight, _ in parts))
        return self._call(
            codec,
            "mean",
            sources,
            weights,
            _count(len(parts)),
            total,
            _count(out.size),
            _floats(out),
        )

    def clipped_mean(
        self, codec: Codec, parts: Sequence[ClipPart], scale: ClipScale, out: Vector
    ) -> Doubles | None:
        """Return what `Codec.clipped_mean` returns; None if an encoding was refused."""
        count = len(parts)
        sources = (ctypes.c_void_p * count)(*[_address(part.data).value for part in parts])
        weights = (ctypes.c_double * count)(*[float(part.weight) for part in parts])
        ratios = (ctypes.c_double * count)(*[part.ratio for part in parts])
        votes = (ctypes.c_uint8 * count)(*[part.votes for part in parts])
        scratch, kept = np.empty(2 * count), np.empty(count)
        done = self._call(
            codec,
            "clipped_mean",
            sources,
            weights,
            ratios,
            votes,
            _count(count),
            _float(sum(part.weight for part in parts)),
            ctypes.c_double(scale.norm),
            ctypes.c_double(float(scale.parameters)),
            _count(out.size),
            ctypes.c_void_p(scratch.ctypes.data),
            ctypes.c_void_p(kept.ctypes.data),
            _floats(out),
        )
        return kept if done else None

    def energies(self, values: Vector) -> Doubles:
        """Return the energy of each chunk (`protocol/averaging/clip.py`)."""
        out = np.empty(chunk_count(values.size))
        self._library.energies(
            _floats(values), _count(values.size), ctypes.c_void_p(out.ctypes.data)
        )
        return out

    def outer_step(
        self,
        anchor: Vector,
        momentum: Vector,
        mean: Vector,
        rate: float,
        mu: float,
        out_anchor: Vector,
        out_momentum: Vector,
    ) -> None:
        """Compute one outer step (`protocol/averaging/outer_step.py`).

        All vectors have one size.
        """
        sources = (_floats(anchor), _floats(momentum), _floats(mean))
        targets = (_floats(out_anchor), _floats(out_momentum))
        self._library.outer_step(*sources, _count(anchor.size), _float(rate), _float(mu), *targets)

    def revision(self) -> int:
        return int(self._library.kernel_revision())

    def _call(self, codec: Codec, loop: str, *arguments: object) -> bool:
        # ctypes caches a function that is looked up as an attribute, and not one that is looked up
        # by index.
        return not getattr(self._library, f"{codec.name}_{loop}")(*arguments)

    def has(self, codec: Codec) -> bool:
        """Return whether all loops of a codec exist."""
        return all(hasattr(self._library, f"{codec.name}_{loop}") for loop in LOOPS)


class KernelStatus(NamedTuple):
    """The loops that this process uses, if any, and the reason in words."""

    loops: KernelLoops | None
    reason: str


def installed(trusted: Sequence[Codec]) -> KernelStatus:
    """Load the loops that the installation built beside this file.

    The result has no loops if the environment forbids them or they do not work for the `trusted`
    codecs.
    """
    if os.environ.get(SWITCH) == "numpy":
        return KernelStatus(None, f"numpy: chosen by {SWITCH}")
    if sys.byteorder != "little":
        return KernelStatus(None, "numpy: the compiled loops are for little-endian machines")
    places = (Path(__file__).with_name(f"_kernel{suffix}") for suffix in EXTENSION_SUFFIXES)
    return load(next((place for place in places if place.exists()), None), trusted)


def load(path: Path | None, trusted: Sequence[Codec]) -> KernelStatus:
    """Load the shared object at `path` and compare its loops with the `trusted` numpy codecs on a
    sample.
    """
    if path is None:
        return KernelStatus(
            None,
            "numpy: the compiled loops are missing; install again with a C compiler to have them",
        )
    try:
        loops = KernelLoops(path)
        revision = loops.revision()
    except (OSError, AttributeError) as error:
        return KernelStatus(None, f"numpy: the compiled loops cannot be loaded ({error})")
    if revision != REVISION:
        return KernelStatus(
            None,
            (
                f"numpy: the compiled loops are of revision {revision}, but this version needs "
                f"{REVISION}; install again"
            ),
        )
    for codec in trusted:
        if not loops.has(codec):
            return KernelStatus(None, f"numpy: the compiled loops lack {codec.name}; install again")
        if not _agree(loops, codec):
            return KernelStatus(
                None, f"numpy: the compiled {codec.name} makes other bytes on this machine"
            )
    return KernelStatus(loops, "compiled")


def _agree(loops: KernelLoops, codec: Codec) -> bool:
    """Return whether loops and numpy agree on a sample with a short chunk and magnitudes from 1e-42
    to 1e38.

    The comparison takes a millisecond.
    """
    bits = np.random.Generator(np.random.PCG64(4)).integers(
        0, 1 << 32, CHUNK_ELEMENTS + 301, np.uint32
    )
    # The mask keeps every exponent below that of infinity.
    values = (bits & np.uint32(0xFEFFFFFF)).view(np.float32)
    data = codec.encode(values, 3)
    means = np.empty((2, values.size), np.float32)
    codec.mean([(5, data), (70_001, data)], means[0])
    out = np.empty(len(data), np.uint8)
    # One part is longer than the bound, another is not a voter's.
    longer = codec.encode(np.minimum(np.abs(values), np.float32(1e30)) * np.float32(5.0))
    parts = [
        ClipPart(weight=weight, data=one, votes=votes)
        for weight, one, votes in (
            (5, data, True),
            (70_001, longer, True),
            (3, data, False),
            (2, data, True),
            (1, data, True),
        )
    ]
    scale = ClipScale(norm=1e37, parameters=values.size)
    clipped = np.empty((2, values.size), np.float32)
    kept = codec.clipped_mean(parts, scale, clipped[0])
    kept_by_loops = loops.clipped_mean(codec, parts, scale, clipped[1])
    return (
        loops.encode(codec, values, 3, out)
        and out.tobytes() == data
        and loops.mean(codec, [(5, data), (70_001, data)], means[1])
        and _same(*means)
        and kept_by_loops is not None
        and kept_by_loops.tobytes() == kept.tobytes()
        and _same(*clipped)
    )


def _same(one: Vector, other: Vector) -> bool:
    return one.tobytes() == other.tobytes()


def _count(number: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(number)


def _float(number: float) -> ctypes.c_float:
    return ctypes.c_float(float(np.float32(number)))


def _address(data: Buffer) -> ctypes.c_void_p:
    return ctypes.c_void_p(np.frombuffer(data, np.uint8).ctypes.data)


def _floats(vector: Vector) -> ctypes.c_void_p:
    return ctypes.c_void_p(vector.ctypes.data)
