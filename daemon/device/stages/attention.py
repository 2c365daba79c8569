"""Attention over a key-value cache, written out so that the order of its sums is known.

torch's fused attention chooses among kernels by the shapes and the machine. Matrix products and a
softmax have one order for each shape, which a replay in the same chunk shapes repeats bit by bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from daemon.device.stages.architecture import Rope


def attend(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """Return the values that the newest tokens attend to, causally.

    Args:
        q: shape (heads, time, size), of the newest `time` tokens.
        k: shape (kv_heads, total, size), of all tokens. A key serves `heads / kv_heads` queries.
        v: as `k`.
        bias: added to the scores. shape (heads, 1, total)

    Returns:
        shape (time, heads * size)
    """
    heads, time, size = q.shape
    kv_heads, total = k.shape[:2]
    grouped = q.reshape(kv_heads, (heads // kv_heads) * time, size)
    scores = torch.matmul(grouped, k.transpose(1, 2)).view(heads, time, total) / math.sqrt(size)
    if bias is not None:
        scores = scores + bias
    if time > 1:
        hidden = torch.ones(time, total, dtype=torch.bool, device=q.device).triu(total - time + 1)
        scores = scores.masked_fill(hidden, -math.inf)
    weights = torch.softmax(scores, dim=-1)
    mixed = torch.matmul(weights.view(kv_heads, -1, total), v)
    return mixed.view(heads, time, size).transpose(0, 1).reshape(time, heads * size)


def rope_frequencies(rope: Rope, size: int, device: torch.device) -> Tensor:
    """Return the angle per position of each pair of a head's elements. shape (size / 2,)

    "llama3" is the rule of Llama 3.1: frequencies whose wave is longer than the trained context
    are divided, short ones stay, and those between are mixed.
    """
    exponents = torch.arange(0, size, 2, dtype=torch.int64).float() / size
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        frequencies = frequencies / rope.factor
    elif rope.kind == "llama3":
        wave = 2 * math.pi / frequencies
        low, high = rope.low_frequency, rope.high_frequency
        longest, shortest = rope.trained_context / low, rope.trained_context / high
        divided = torch.where(wave > longest, frequencies / rope.factor, frequencies)
        smooth = (rope.trained_context / wave - low) / (high - low)
        mixed = (1 - smooth) * divided / rope.factor + smooth * divided
        between = ~(wave < shortest) & ~(wave > longest)
        frequencies = torch.where(between, mixed, divided)
    return frequencies.to(device)


def rotation(frequencies: Tensor, first: int, time: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine for `time` positions from `first`. shape of each: (time, size)"""
    positions = torch.arange(first, first + time, device=frequencies.device).float()
    angles = positions[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turned: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (i, i + size / 2) of each head. shape (heads, time, size) to the same."""
    cosine, sine = turned
    half = x.shape[-1] // 2
    swapped = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cosine + swapped * sine


def alibi_slopes(heads: int, device: torch.device) -> Tensor:
    """Return how fast the score of each head falls with the distance. shape (heads,)

    Source: https://arxiv.org/abs/2108.12409, with the rule of BLOOM for other numbers of heads
    than powers of two.
    """
    power = 2 ** math.floor(math.log2(heads))
    base = 2.0 ** -(2.0 ** -(math.log2(power) - 3))
    slopes = torch.tensor(base).pow(torch.arange(1, 1 + power, dtype=torch.int32))
    if power < heads:
        more = torch.tensor(2.0 ** -(2.0 ** -(math.log2(2 * power) - 3)))
        odd = torch.arange(1, 1 + 2 * (heads - power), 2, dtype=torch.int32)
        slopes = torch.cat((slopes, more.pow(odd)))
    return slopes.to(device)
