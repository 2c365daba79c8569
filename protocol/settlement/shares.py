"""Division of a pool in whole units by the largest remainder method.

https://en.wikipedia.org/wiki/Largest_remainders_method
"""

from __future__ import annotations

from collections.abc import Mapping


def share_pool(pool: int, weights: Mapping[bytes, int]) -> dict[bytes, int]:
    """Divide `pool` units in proportion to `weights`, without a rest if any weight is above 0.

    Each name gets the whole part of its share. The units left over go to the largest remainders;
    among equal remainders, to the smaller names. Only integers are used, so that every machine
    divides alike. Raises `ValueError` for a negative pool or weight.
    """
    if pool < 0 or any(weight < 0 for weight in weights.values()):
        raise ValueError("neither a pool nor a weight is below 0")
    whole = sum(weights.values())
    if not whole:
        return {}
    parts = {name: divmod(pool * weight, whole) for name, weight in weights.items()}
    left = pool - sum(part for part, _ in parts.values())
    ranked = sorted(parts, key=lambda name: (-parts[name][1], name))
    extra = set(ranked[:left])
    return {name: part + (name in extra) for name, (part, _) in parts.items()}
