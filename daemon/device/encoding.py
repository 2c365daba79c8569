"""The codecs' encoders in torch, on whatever device the values are: the same bytes as numpy's
(`protocol/codec/`).

Worker process only.

Three things that torch does otherwise and that bits depend on:
- a tensor divided by a number is multiplied with its reciprocal on CUDA: divisors are tensors on the device here;
- `sub` and `add` with `alpha` may be fused: products are made first;
- the worker's CPU flushes denormals (`device.py`): quotients below 2**-126 then become zero, which int8, int4, float16 and topk encode as zero
  anyway, and float32 and bfloat16 do not. On CUDA torch flushes nothing.

top-k chooses its elements on the device, and what it chose, one in 64, goes through the numpy
encoder.
"""

from __future__ import annotations

import numpy as np
import torch

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.codec import REFERENCES, Codec
from protocol.codec.blocks import SMALLEST_SCALE, Int4, Int8
from protocol.codec.topk import TopK

_BFLOAT16_MAX = float(torch.finfo(torch.bfloat16).max)
_FLOAT16_MAX = float(torch.finfo(torch.float16).max)


def encode(codec: str, values: torch.Tensor, over: float = 1.0) -> torch.Tensor:
    """Encode `values` / `over`, float32 of shape (elements,), into bytes on the same device, shape
    (bytes,).

    Raises `ValueError` for a value that is not finite, and `KeyError` for a codec that has no
    encoder.
    """
    if values.dtype != torch.float32 or values.ndim != 1 or not values.is_contiguous():
        raise ValueError(
            f"a codec works on contiguous float32, not on {values.dtype} of shape {tuple(values.shape)}"
        )
    if not values.numel():
        return torch.empty(0, dtype=torch.uint8, device=values.device)
    quotients = values if over == 1.0 else values / _number(values, over)
    if not bool(torch.isfinite(quotients).all()):
        raise ValueError("a value is not finite: it cannot be offered to anybody")
    match codec:
        case "float32":
            return quotients.view(torch.uint8)
        case "bfloat16":
            return (
                quotients.clamp(-_BFLOAT16_MAX, _BFLOAT16_MAX).to(torch.bfloat16).view(torch.uint8)
            )
        case "float16":
            return quotients.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).to(torch.float16).view(torch.uint8)
    reference = REFERENCES[codec]
    whole = values.numel() // CHUNK_ELEMENTS * CHUNK_ELEMENTS
    parts = (
        [_chunks(reference, quotients[:whole].view(-1, CHUNK_ELEMENTS)).reshape(-1)]
        if whole
        else []
    )
    if whole < values.numel():
        parts.append(_chunks(reference, quotients[whole:].view(1, -1)).reshape(-1))
    return torch.cat(parts)


def _chunks(codec: Codec, values: torch.Tensor) -> torch.Tensor:
    """Chunks of one length, shape (chunks, elements) to (chunks, bytes)."""
    match codec:
        case Int8():
            scales, levels = _int8(_blocks(values, codec.block))
        case Int4():
            scales, levels = _int4(_blocks(values, codec.block))
        case TopK():
            return _topk(codec, values)
        case _:
            raise KeyError(codec.name)
    chunks, elements = values.shape
    head = scales.to(torch.int16).view(chunks, -1).view(torch.uint8)
    return torch.cat(
        [head, levels.reshape(chunks, -1)[:, : codec.size(elements) - head.shape[1]]], dim=1
    )


def _blocks(values: torch.Tensor, block: int) -> torch.Tensor:
    """Shape (chunks, blocks, block), the last block of a short chunk filled up with zeros."""
    chunks, elements = values.shape
    missing = -elements % block
    return torch.nn.functional.pad(values, (0, missing)).view(chunks, -1, block)


def _int8(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scales as bfloat16 bits, shape (chunks, blocks), and the levels as bytes, shape (chunks,
    blocks, block).
    """
    peaks = blocks.abs().amax(dim=2)
    scales = _bfloat16_bits(peaks / _number(peaks, 127.0)).clamp(min=SMALLEST_SCALE)
    return scales, _levels(blocks, scales).view(torch.uint8)


def _int4(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_int8`, two levels in a byte."""
    peaks = blocks.abs().amax(dim=2)
    positive = blocks.amin(dim=2) != -peaks
    scales = _bfloat16_bits(peaks * 0.125).clamp(max=Int4.largest_scale)
    signed = torch.where(
        scales < SMALLEST_SCALE, SMALLEST_SCALE, scales - 0x8000 * positive.to(torch.int32)
    )  # 0x8000 less: the sign of an int16
    levels = _levels(blocks, signed)
    levels = torch.where(levels == 8, 7, levels).view(torch.uint8) & 15  # the opposite of the peak
    return signed, levels[..., 0::2] | levels[..., 1::2] << 4


def _levels(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    sizes = (scales << 16).view(torch.float32)
    steps = torch.ones_like(sizes) / sizes
    return (blocks * steps[..., None]).round().to(torch.int8)


def _bfloat16_bits(values: torch.Tensor) -> torch.Tensor:
    """Of values that are not negative: the upper halves of their bits, rounded to nearest, ties to
    even.
    """
    bits = values.view(torch.int32)
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def _topk(codec: TopK, values: torch.Tensor) -> torch.Tensor:
    kept = codec.kept(values.shape[1])
    # Of equal ones the first: the magnitude's bits above the place from behind, in one integer.
    places = torch.arange(values.shape[1], device=values.device)
    order = (values.abs().view(torch.int32).to(torch.int64) << 32) - places
    chosen = order.topk(kept, dim=1, sorted=False).indices.sort(dim=1).values
    packed = codec.pack(chosen.cpu().numpy(), values.gather(1, chosen).cpu().numpy())
    return torch.from_numpy(np.ascontiguousarray(packed)).to(values.device)


def _number(like: torch.Tensor, value: float) -> torch.Tensor:
    """A number on the device: see above."""
    return torch.tensor(value, dtype=torch.float32, device=like.device)
