"""Blockwise integers: the elements of a block share one scale.

An element is a small integer times its block's scale. A chunk is the scales of its blocks, then
their levels. The scale is a bfloat16. Measured on pseudo-gradients of the byte GPT, scaled so that
their root mean square is 1e-9 to 100: the relative error of int8 is 0.475% with bfloat16 scales
everywhere. With float16 scales it is 0.474% from 1e-3 up, 1.5% at 1e-5, and 100% at 1e-6 and below,
where the scales fall below float16's smallest number. With float32 scales it is 0.474%. A bfloat16
scale times an integer of 8 bits is exact in float32, so a decoder never rounds.

Times that decided the numpy code, in microseconds for 65,536 elements: maxima of blocks take 8
(256) and 11 (64) with `maximum.reduceat` on the bits, and 24 and 68 with `max(axis=1)` on floats.
Removing int4's one level too many takes 5 with a comparison, and 25 with `minimum` and a scalar.
Nibbles take 14 as 16-bit integers, two at a time, and 22 with a table of pairs. `hypergpud bench
codecs` measures the whole.
"""

from __future__ import annotations

import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.codec.base import MAGNITUDE, Bits16, Bytes8, check_peak
from protocol.codec.block_codec import SMALLEST_SCALE, BlockCodec
from protocol.codec.floats import from_bfloat16, to_bfloat16
from protocol.errors import PeerFault


def _of_blocks(scales: Vector, out: Vector) -> None:
    """Write each block's scale to each of its elements; `out` has shape (blocks, elements).

    Multiplying with these copies takes less time than letting numpy stretch the scales, if the
    factor is not in the first cache: encoding gains 15%, decoding nothing.
    """
    np.copyto(out, scales.reshape(-1, 1))


class Int8(BlockCodec):
    """Blocks of 256, levels -127 to 127: 8.0625 bits per element.

    The block's greatest magnitude is 127 steps. An element's error is at most half a step: 1/254 of
    the block's greatest magnitude, and up to 1/256 more of that by the scale's rounding. Rounding
    the scale down makes at most 127.497 steps of the greatest magnitude, so no level needs a limit.
    """

    name = "int8"
    block = 256
    level_bits = 8
    # 127 times it is the largest such product that float32 holds. No encoder makes a larger scale.
    largest_scale = 0x7C01

    def _scale_size(self, scales: Bits16) -> Bits16:
        # A set sign makes a scale larger than the largest.
        return scales

    def _encode_chunks(
        self, values: Vector, first: int, scratch: Vector, scales: Bits16, levels: Bytes8
    ) -> None:
        bits = np.bitwise_and(values.view(np.uint32), MAGNITUDE, out=scratch.view(np.uint32))
        peaks = np.maximum.reduceat(bits, np.arange(0, values.size, self.block))
        check_peak(int(peaks.max()), first)
        steps = to_bfloat16((peaks.view(np.float32) / np.float32(127.0)).view(np.uint32))
        np.maximum(steps, np.uint16(SMALLEST_SCALE), out=steps)
        scales[:] = steps.reshape(scales.shape)
        _of_blocks(np.float32(1.0) / from_bfloat16(steps), scratch.reshape(-1, self.block))
        np.multiply(values, scratch, out=scratch)
        np.rint(scratch, out=scratch)
        np.copyto(levels.view(np.int8), scratch.reshape(levels.shape), casting="unsafe")

    def _check_levels(self, levels: Bytes8) -> None:
        # No encoder makes level -128, and 128 times the largest scale is infinite.
        if levels.view(np.int8).min() == -128:
            raise PeerFault("malformed", "an encoding with a level that is out of range")

    def _decode_chunks(self, scales: Vector, levels: Bytes8, out: Vector) -> None:
        out.reshape(levels.shape)[:] = levels.view(np.int8)
        blocks = out.reshape(-1, self.block)
        np.multiply(blocks, scales, out=blocks)


class Int4(BlockCodec):
    """Blocks of 64 with levels -8 to 7: 4.25 bits per element.

    The earlier element is in the low half of a byte. The scale is signed, so that the block's
    greatest magnitude is level -8, whichever sign it has. All 16 levels are used, and the error is
    a tenth below that of levels -7 to 7: on the byte GPT's pseudo-gradients of the first and sixth
    round 7.0 and 9.3% against 7.7 and 10.6%. 4-bit normal floats have 9.0 and 9.3%.

    An element's error is at most half a step, a sixteenth of the block's greatest magnitude. For
    elements near the opposite of the greatest it is up to about one step, an eighth.
    """

    name = "int4"
    block = 64
    level_bits = 4
    # 8 times it is the largest bfloat16.
    largest_scale = 0x7DFF
    _AS_IS = np.uint16(0x7FFF)

    def _scale_size(self, scales: Bits16) -> Bits16:
        return scales & self._AS_IS

    def _encode_chunks(
        self, values: Vector, first: int, scratch: Vector, scales: Bits16, levels: Bytes8
    ) -> None:
        source = values.view(np.uint32)
        bits = np.left_shift(source, np.uint32(1), out=scratch.view(np.uint32))
        # Magnitude above sign: the greatest magnitude of a block brings its sign along.
        bits |= source >> np.uint32(31)
        peaks = np.maximum.reduceat(bits, np.arange(0, values.size, self.block))
        magnitudes, positive = peaks >> np.uint32(1), (peaks & np.uint32(1)) == 0
        check_peak(int(magnitudes.max()), first)
        steps = to_bfloat16((magnitudes.view(np.float32) * np.float32(0.125)).view(np.uint32))
        np.minimum(steps, np.uint16(self.largest_scale), out=steps)
        small = steps < SMALLEST_SCALE
        steps[small] = SMALLEST_SCALE
        # A positive peak is -8 times a negative step.
        steps |= (positive & ~small).astype(np.uint16) << np.uint16(15)
        scales[:] = steps.reshape(scales.shape)
        _of_blocks(np.float32(1.0) / from_bfloat16(steps), scratch.reshape(-1, self.block))
        np.multiply(values, scratch, out=scratch)
        np.rint(scratch, out=scratch)
        whole = scratch.astype(np.int8)
        # The opposite of the peak would be level 8.
        whole -= (whole == 8).view(np.int8)
        pairs = whole.view("<u2")
        packed = pairs >> np.uint16(4)
        packed &= np.uint16(0x00F0)
        pairs &= np.uint16(0x000F)
        pairs |= packed
        np.copyto(levels, pairs.reshape(levels.shape), casting="unsafe")

    def _decode_chunks(self, scales: Vector, levels: Bytes8, out: Vector) -> None:
        pairs = levels.astype(np.uint16)
        # Each half moves to the top of a byte of its own.
        lower = pairs << np.uint16(4)
        pairs <<= np.uint16(8)
        pairs |= lower
        pairs &= np.uint16(0xF0F0)
        # 16 times the level, with its sign.
        out[:] = pairs.reshape(-1).view(np.int8)
        blocks = out.reshape(-1, self.block)
        np.multiply(blocks, scales * np.float32(0.0625), out=blocks)
