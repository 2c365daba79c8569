"""Chooses tokens from logits with random numbers that depend on the request and the place alone.

The number for a place comes from Philox, a counter-based generator
(https://doi.org/10.1145/2063384.2063405). The request's seed is the key, and the place the counter.
So a generation that continues on another machine from the same logits has the same tokens, whatever
was drawn before.

Guaranteed: the same logits, rules, seed and place give the same token. Not guaranteed: the same
token for logits that differ in their last bits, where two tokens are almost equally likely.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from protocol.digest import digest

_DOMAIN = b"hypergpu/sampler/1\0"
# A float64 has 53 bits of significand.
_BITS = 53

Logits = npt.NDArray[np.float32]
"""Shape (vocabulary,)."""


class SamplingRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tokens are chosen.

    A `temperature` of 0 always takes the likeliest token. `top_p` keeps the likeliest tokens whose
    probabilities add up to it (https://arxiv.org/abs/1904.09751).
    """

    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.8
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0


def choose_token(logits: Logits, rules: SamplingRules, place: int) -> int:
    """Return the token at `place`, which counts the tokens of the request from 0.

    Raises `ValueError` for logits that are not finite.
    """
    if not bool(np.isfinite(logits).all()):
        raise ValueError("the logits are not finite")
    if rules.temperature == 0:
        # The first of equal ones.
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / rules.temperature
    likelihood = np.exp(scaled - scaled.max())
    # Stable: equal tokens stay in the order of their ids.
    order = np.argsort(-likelihood, kind="stable")
    total = np.cumsum(likelihood[order])
    kept = int(np.searchsorted(total, rules.top_p * total[-1])) + 1
    total = total[: min(kept, len(total))]
    drawn = uniform_at(rules.seed, place) * total[-1]
    return int(order[min(int(np.searchsorted(total, drawn, side="right")), len(total) - 1)])


def uniform_at(seed: int, place: int) -> float:
    """Return the random number in [0, 1) for a place of a request."""
    key = int.from_bytes(digest(_DOMAIN, seed.to_bytes(8, "little"))[:16], "little")
    source = np.random.Philox(key=key, counter=place)
    return float(int(source.random_raw()) >> (64 - _BITS)) / float(1 << _BITS)
