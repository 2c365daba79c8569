"""Which layers of a model the swarm serves, and which range a further stage should serve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from protocol.inference.layers import LayerRange


def holders_by_layer(ranges: Iterable[LayerRange], layers: int) -> list[int]:
    """Count the ranges that hold each layer; shape (layers,)."""
    counts = [0] * layers
    for held in ranges:
        for layer in range(held.first, min(held.stop, layers)):
            counts[layer] += 1
    return counts


def missing_layers(ranges: Iterable[LayerRange], wanted: LayerRange) -> tuple[LayerRange, ...]:
    """Return the parts of `wanted` that no range holds, in order."""
    counts = holders_by_layer(ranges, wanted.stop)
    missing: list[LayerRange] = []
    for layer in range(wanted.first, wanted.stop):
        if counts[layer]:
            continue
        if missing and missing[-1].stop == layer:
            missing[-1] = LayerRange(first=missing[-1].first, stop=layer + 1)
        else:
            missing.append(LayerRange(first=layer, stop=layer + 1))
    return tuple(missing)


def choose_range(held: Sequence[int], count: int) -> LayerRange:
    """Return the `count` layers in a row that the swarm covers worst.

    A range is worse covered where its rarest layer has fewer holders; then its next rarest. The
    first of equal ranges is chosen, so that stages which start one after the other fill a model
    from the front.

    Args:
        held: the holders of each layer, shape (layers,).
        count: from 1 to the number of layers.
    """
    if not 1 <= count <= len(held):
        raise ValueError(f"{count} layers of {len(held)}")
    first = min(
        range(len(held) - count + 1), key=lambda start: (sorted(held[start : start + count]), start)
    )
    return LayerRange(first=first, stop=first + count)


def name_layers(ranges: Sequence[LayerRange]) -> str:
    """Return words for ranges: "layer 3", or "layers 4 to 7 and 10 to 12"."""
    words = [
        str(one.first) if len(one) == 1 else f"{one.first} to {one.stop - 1}" for one in ranges
    ]
    many = len(words) > 1 or len(ranges[0]) > 1
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"layer{'s' if many else ''} {listed}"
