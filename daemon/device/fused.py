"""int8 and int4 with error feedback as one Triton kernel: each value is read once, its level and
what the encoding lost are written once.

torch's own encoder (`encoding.py`) passes over the vector eight times; on a GPU, where arithmetic
costs nothing, time is the bytes moved: 4 read and 5.03 (int8) or 4.53 (int4) written for each
element. Triton comes with the CUDA builds of torch, so this module is imported where there is CUDA
alone.

Bits depend on three things: divisions are `div_rn` (Triton's `/` is approximate), nothing is fused
(`enable_fp_fusion=False`), and rounding is by adding 1.5 * 2**23, after which the nearest integer,
ties to even, stands in the low bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec import REFERENCES

# Of one program: eight blocks of int8, and 16 values for each thread of four warps.
_TILE_ELEMENTS = 2048

_CHUNK = tl.constexpr(CHUNK_ELEMENTS)
_MAGNITUDE = tl.constexpr(0x7FFFFFFF)
_INFINITE = tl.constexpr(0x7F800000)
_SMALLEST_SCALE = tl.constexpr(0x0280)
_INT4_LARGEST_SCALE = tl.constexpr(0x7DFF)
_ROUNDER = tl.constexpr(12582912.0)
_ROUNDER_BITS = tl.constexpr(0x4B400000)


def encode_with_feedback(
    codec: str, sums: torch.Tensor, weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """q = encode(`sums` / `weight`) and what stays, `sums` - `weight` x decoded: bytes, shape
    (bytes,), and float32, shape (elements,).

    `sums` is contiguous float32 on a CUDA device. Raises `ValueError` for a value that is not
    finite, and `KeyError` for another codec.
    """
    block = {"int8": 256, "int4": 64}[codec]
    elements, whole = sums.numel(), sums.numel() // CHUNK_ELEMENTS * CHUNK_ELEMENTS
    size = REFERENCES[codec].size
    data = torch.empty(size(elements), dtype=torch.uint8, device=sums.device)
    residue = torch.empty_like(sums)
    unfit = torch.zeros(1, dtype=torch.int32, device=sums.device)
    for start, stop in ((0, whole), (whole, elements)):
        if start == stop:
            continue
        out = data[size(start) : size(stop)]
        # The scales: at even places, every chunk's size being even.
        halves = out[: out.numel() // 2 * 2].view(torch.int16)
        _encode[(triton.cdiv(stop - start, _TILE_ELEMENTS),)](
            sums[start:stop], out, halves, residue[start:stop], unfit, stop - start, float(weight), BLOCK=block,
            ROWS=_TILE_ELEMENTS // block, NIBBLES=codec == "int4", WHOLE=stop == whole, enable_fp_fusion=False,
        )  # fmt: skip
    if int(unfit):
        raise ValueError("a value is not finite: it cannot be offered to anybody")
    return data, residue


@triton.jit
def _bfloat16_bits(values):  # type: ignore[no-untyped-def]
    """Of values that are not negative: the upper halves of their bits, rounded to nearest, ties to
    even.
    """
    bits = values.to(tl.int32, bitcast=True)
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


@triton.jit
def _encode(  # type: ignore[no-untyped-def]
    sums, data, halves, residue, unfit, elements, weight,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, NIBBLES: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """`ROWS` blocks of whole chunks, whose places the compiler knows to be aligned, or of one short
    chunk, which has fewer scales.
    """
    rows = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    here = rows * BLOCK + tl.arange(0, BLOCK)[None, :]
    scales_bytes = _CHUNK // BLOCK * 2 if WHOLE else (elements + BLOCK - 1) // BLOCK * 2
    chunk = rows // (_CHUNK // BLOCK)

    held = tl.load(sums + here) if WHOLE else tl.load(sums + here, mask=here < elements, other=0.0)
    values = tl.div_rn(held, tl.zeros_like(held) + weight)
    magnitudes = values.to(tl.int32, bitcast=True) & _MAGNITUDE
    greatest = tl.max(magnitudes, axis=1)
    if tl.max(greatest, axis=0) >= _INFINITE:
        tl.atomic_max(unfit, 1)
    peak = greatest[:, None].to(tl.float32, bitcast=True)
    if NIBBLES:
        negative = tl.max((values == -peak).to(tl.int32), axis=1)[:, None]
        size = tl.minimum(_bfloat16_bits(peak * 0.125), _INT4_LARGEST_SCALE)
        scales = tl.where(size < _SMALLEST_SCALE, _SMALLEST_SCALE, size | ((1 - negative) << 15))
    else:
        scales = tl.maximum(
            _bfloat16_bits(tl.div_rn(peak, tl.zeros_like(peak) + 127.0)), _SMALLEST_SCALE
        )
    scale = (scales << 16).to(tl.float32, bitcast=True)
    steps = tl.div_rn(tl.zeros_like(scale) + 1.0, scale)
    levels = (values * steps + _ROUNDER).to(tl.int32, bitcast=True) - _ROUNDER_BITS
    if NIBBLES:
        levels = tl.minimum(levels, 7)
    left = held - (levels.to(tl.float32) * scale) * weight

    chunk_bytes = _CHUNK // BLOCK * 2 + (_CHUNK // 2 if NIBBLES else _CHUNK)
    to_scales = halves + (chunk * (chunk_bytes // 2) + (rows - chunk * (_CHUNK // BLOCK)))
    to_levels = data + (chunk * chunk_bytes + scales_bytes)
    if NIBBLES:
        even, odd = tl.split(tl.reshape(levels & 15, (ROWS, BLOCK // 2, 2)))
        out = (even | (odd << 4)).to(tl.uint8)
        first = rows * (BLOCK // 2) + tl.arange(0, BLOCK // 2)[None, :]
        to_levels += first - chunk * (_CHUNK // 2)
        inside = 2 * first < elements
    else:
        out = levels.to(tl.uint8)
        to_levels += here - chunk * _CHUNK
        inside = here < elements
    if WHOLE:
        tl.store(residue + here, left)
        tl.store(to_scales, scales.to(tl.int16))
        tl.store(to_levels, out)
    else:
        tl.store(residue + here, left, mask=here < elements)
        tl.store(to_scales, scales.to(tl.int16), mask=rows * BLOCK < elements)
        tl.store(to_levels, out, mask=inside)
