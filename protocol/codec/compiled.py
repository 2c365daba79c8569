"""A codec with compiled loops: the same bytes as numpy in one pass over memory, three to eight
times as fast.

The numpy codec stays the definition. It does the work if the loops are missing, and it names the
reason when a loop refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from protocol.averaging.clip import ClipPart, ClipScale, Doubles
from protocol.averaging.vector_layout import Vector
from protocol.codec.base import Bytes8, Codec, check_room, check_size, check_vector
from protocol.codec.kernel import KernelLoops, KernelStatus
from protocol.codec.memory import SMALLEST_FRESH, fresh_bytes
from protocol.digest import Buffer
from protocol.errors import InvariantBroken


class CompiledCodec:
    """A `Codec` that runs the loops of `kernel.c`, or numpy without them.

    Each call asks `kernel` for the loops, so that importing a codec loads nothing.
    """

    def __init__(self, reference: Codec, kernel: Callable[[], KernelStatus]) -> None:
        self.reference = reference
        self.name = reference.name
        self.lossless = reference.lossless
        self._kernel = kernel

    @property
    def result(self) -> Codec:
        result = self.reference.result
        return self if result is self.reference else result

    def size(self, elements: int) -> int:
        return self.reference.size(elements)

    def encode(self, values: Vector, over: float = 1.0) -> bytes:
        check_vector(values)
        loops = self._kernel().loops
        size = self.size(values.size)
        if loops is None or size < SMALLEST_FRESH:
            return self.reference.encode(values, over)
        data, out = fresh_bytes(size)
        self._encode(loops, values, over, out)
        return data

    def encode_into(self, values: Vector, over: float, out: memoryview) -> None:
        check_vector(values)
        check_room(out, self.size(values.size))
        loops = self._kernel().loops
        if loops is None or not values.size:
            self.reference.encode_into(values, over, out)
        else:
            self._encode(loops, values, over, np.frombuffer(out, np.uint8))

    def _encode(self, loops: KernelLoops, values: Vector, over: float, out: Bytes8) -> None:
        if not loops.encode(self.reference, values, over, out):
            self.reference.encode(values, over)
            raise self._contradiction()

    def check(self, data: Buffer, elements: int) -> None:
        check_size(data, self.size(elements))
        loops = self._kernel().loops
        if loops is None or not elements:
            self.reference.check(data, elements)
        elif not loops.check(self.reference, data, elements):
            self.reference.check(data, elements)
            raise self._contradiction()

    def decode(self, data: Buffer, out: Vector) -> None:
        check_vector(out, written=True)
        check_size(data, self.size(out.size))
        loops = self._kernel().loops
        if loops is None or not out.size:
            self.reference.decode(data, out)
        elif not loops.decode(self.reference, data, out):
            self.reference.decode(data, out)
            raise self._contradiction()

    def add(self, data: Buffer, weight: float, out: Vector) -> None:
        check_vector(out, written=True)
        check_size(data, self.size(out.size))
        loops = self._kernel().loops
        if loops is None or not out.size:
            self.reference.add(data, weight, out)
        elif not loops.add(self.reference, data, weight, out):
            self.reference.add(data, weight, out)
            raise self._contradiction()

    def mean(self, parts: Sequence[tuple[int, Buffer]], out: Vector) -> None:
        check_vector(out, written=True)
        for _, data in parts:
            check_size(data, self.size(out.size))
        loops = self._kernel().loops
        if loops is None or not out.size:
            self.reference.mean(parts, out)
        elif not loops.mean(self.reference, parts, out):
            self.reference.mean(parts, out)
            raise self._contradiction()

    def clipped_mean(self, parts: Sequence[ClipPart], scale: ClipScale, out: Vector) -> Doubles:
        check_vector(out, written=True)
        for part in parts:
            check_size(part.data, self.size(out.size))
        loops = self._kernel().loops
        if loops is None or not out.size:
            return self.reference.clipped_mean(parts, scale, out)
        kept = loops.clipped_mean(self.reference, parts, scale, out)
        if kept is None:
            self.reference.clipped_mean(parts, scale, out)
            raise self._contradiction()
        return kept

    def _contradiction(self) -> InvariantBroken:
        return InvariantBroken(f"the compiled {self.name} codec refused what numpy accepts")
