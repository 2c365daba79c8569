"""The known name that a mistyped name most likely means."""

from __future__ import annotations

from collections.abc import Collection

SHORTEST = 4
"""Letters of a prefix that stands for the whole name."""

LONGEST = 64
"""Longer names are not compared."""


def nearest(name: str, known: Collection[str]) -> str:
    """Return the known name that `name` is a prefix of, or the one with the fewest typing errors.

    A name is near if it has at most two errors, and at most one for every four letters. The result
    is empty if no name is near, because a wrong suggestion misleads.
    """
    beginning = (
        [candidate for candidate in known if candidate.startswith(name)]
        if len(name) >= SHORTEST
        else []
    )
    if len(beginning) == 1:
        return beginning[0]
    best, fewest = "", 3
    for candidate in known:
        if abs(len(candidate) - len(name)) < fewest and max(len(candidate), len(name)) <= LONGEST:
            errors = _typing_errors(name.lower(), candidate.lower())
            if errors < fewest and 4 * errors <= max(len(candidate), len(name)):
                best, fewest = candidate, errors
    return best


def _typing_errors(one: str, other: str) -> int:
    """Count letters inserted, left out, replaced, or exchanged with their neighbour.

    This is the optimal string alignment distance,
    https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance.
    """
    before: list[int] = []
    # The distances from the letters so far to each beginning of `other`.
    distances = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, distances = distances, before, [i]
        for j, wanted in enumerate(other, 1):
            errors = min(before[j] + 1, distances[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                errors = min(errors, last[j - 2] + 1)
            distances.append(errors)
    return distances[-1]
