"""How figures and names are written for people: the same in sentences, terminal and page.

Pure text, standard library only. `clean` makes a stranger's text fit to show: one line, bounded,
and only printable characters. So there are no terminal escapes, bidirectional overrides or lone
surrogates.
"""

from __future__ import annotations

import math

MISSING = "–"
BIGGEST = 1 << 53
"""The largest integer that JSON readers in JavaScript keep exact."""

DECIMALS = 18
"""Decimals of a token, as of every coin on an EVM."""


def clean(text: str, limit: int) -> str:
    """Return `text` on one line of at most `limit` printable characters."""
    cut = _printable(text[: limit + 1], "")
    return cut if len(cut) <= limit else cut[: limit - 1] + "…"


def clean_lines(text: str) -> str:
    """Return `text` with printable characters, newlines and tabs alone."""
    return _printable(text, "\n\t")


def _printable(text: str, kept: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in kept
        else (" " if letter.isspace() else "\ufffd")
        for letter in text
    )


def finite(value: float | None) -> float | None:
    """Return `value`, or None if it is not a number that JSON can carry."""
    return value if value is not None and math.isfinite(value) else None


def natural(value: float, limit: float = BIGGEST) -> float:
    """Return `value` between 0 and `limit`; 0 for what is not a number."""
    return min(max(value, 0.0), limit) if math.isfinite(value) else 0.0


def whole(value: int) -> int:
    """Return `value` between 0 and `BIGGEST`."""
    return min(max(value, 0), BIGGEST)


def count(number: int) -> str:
    """Write a number with separators: 12,345."""
    return f"{number:,}"


def tokens(amount: int) -> str:
    """Write base units as tokens, exactly: 12.5 or 0.000000000000000001."""
    whole, part = divmod(amount, 10**DECIMALS)
    text = f"{whole:,}"
    return f"{text}.{part:018d}".rstrip("0") if part else text


def quantity(number: int, one: str, many: str = "") -> str:
    """Write a number with its noun: 1 round, 12,345 rounds."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def round_numbers(first: int, last: int) -> str:
    """Write the numbers of consecutive rounds: round 96, rounds 96-98."""
    return f"round {first}" if first == last else f"rounds {first}-{last}"


def compact(number: float) -> str:
    """Write a number with at most four figures, for narrow columns: 940, 12.3 k, 4.56 M."""
    for scale, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= scale:
            scaled = number / (1e3 if unit == "k" else scale)
            return f"{scaled:.3g} {unit}" if scaled < 1000 else f"{scaled:.0f} {unit}"
    return f"{number:,.0f}"


def rate(per_second: float) -> str:
    """Write samples a second: 0.5, 12.3, 1,234."""
    return f"{per_second:,.0f}" if per_second >= 100 or per_second == 0 else f"{per_second:.3g}"


def loss(value: float | None) -> str:
    """Write a loss with four figures, as far as it is worth reading."""
    if value is None:
        return MISSING
    if value and (abs(value) >= 1000 or abs(value) < 0.001):
        return f"{value:.4g}"
    return f"{value:#.4g}".rstrip(".") if value else "0"


def duration(seconds: float | None) -> str:
    """Write a duration: 820 ms, 8.2 s, 41 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return (
            f"{seconds * 1000:.0f} ms"
            if seconds >= 0.0095 or seconds == 0
            else f"{seconds * 1000:.1f} ms"
        )
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    total = round(seconds)
    for size, unit, part, part_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if total >= size:
            rest = total % size // part
            return (
                f"{total // size} {unit} {rest} {part_unit}" if rest else f"{total // size} {unit}"
            )
    return f"{total} s"


def size(size_bytes: float) -> str:
    """Write bytes in powers of 1,000, as disks are sold: 512 B, 1.5 kB, 3.2 MB, 1.1 GB."""
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def tail(identity: str) -> str:
    """Return the last eight characters of a peer id: the first ones are the same for all peers."""
    return identity[-8:]


PHASES = {
    "train": "training",
    "offer": "making its offer",
    "ready": "waiting for the plan",
    "scatter": "sending its slices",
    "reduce": "averaging",
    "vote": "voting",
    "watch": "waiting for the others",
    "adopt": "applying the new anchor",
    "fetch": "catching up",
}
"""What a node does in each `protocol.round.phases.Phase`.

A phase of another version is shown by its own name.
"""


def phase_words(phase: str) -> str:
    """Say what a node in `phase` is doing."""
    return PHASES.get(phase, phase)
