"""The known name that somebody most likely meant: near in typing errors, or none."""

from __future__ import annotations

from collections.abc import Collection

# Letters of a beginning that stands for the whole name.
SHORTEST = 4
# Letters compared: a name above this is none of ours.
LONGEST = 64


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that `name` begins, or that has the fewest typing errors to it; empty where
    none is near.

    Near means: at most two errors, and at most one for every four letters. A suggestion that is not
    near misleads.
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
    """Letters inserted, left out, replaced, or exchanged with their neighbour: the optimal string
    alignment distance.

    https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, wanted in enumerate(other, 1):
            errors = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                errors = min(errors, last[j - 2] + 1)
            row.append(errors)
    return row[-1]
