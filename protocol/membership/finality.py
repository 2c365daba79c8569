"""Since when a node has held its certificates, and which of them are final.

A certificate that a node held for a day is final: only the node's owner leaves it. Old keys of
voters that left for good could otherwise sign another history. A day lets people repair a split.

A day of short rounds has thousands of certificates. A node keeps the times of the last one, of one
or two in forty minutes before it, and of the last final one. Whatever came before a final
certificate is final, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from protocol.digest import Digest
from protocol.ports.disk_records import HeldCertificate

FINAL_S = 86_400.0
# A certificate becomes final at most so much too late. The times of a day then fit into one page.
HELD_EVERY_S = 2400.0
# A day's certificates, the last final one, the last one, and room for times that a clock moved.
HELD_KEPT = 80


def is_final(held_since: float, now: float) -> bool:
    """Whether a certificate held since `held_since` is final at `now`, both in seconds."""
    return now - held_since >= FINAL_S


def held_with(
    held: Sequence[HeldCertificate], certificate: Digest, now: float
) -> tuple[HeldCertificate, ...]:
    """Return the kept times after a node adopted `certificate` at `now`.

    Args:
        held: the kept times, in seconds, the oldest first.
        certificate: one that is already among them keeps its time.
        now: of the same clock.
    """
    if any(one.certificate == certificate for one in held):
        return tuple(held)
    kept = list(held)
    if len(kept) > 1 and now - kept[-2].since_s < HELD_EVERY_S:
        kept.pop()
    kept.append(HeldCertificate(certificate=certificate, since_s=now))
    finals = sum(is_final(one.since_s, now) for one in kept)
    return tuple(kept[max(0, finals - 1, len(kept) - HELD_KEPT) :])


def has_final(held: Iterable[HeldCertificate], own: Collection[Digest], now: float) -> bool:
    """Whether one of the certificates `own` is final at `now`."""
    return any(one.certificate in own and is_final(one.since_s, now) for one in held)


def moved_to_clock(
    held: Iterable[HeldCertificate], by_s: float, now: float
) -> tuple[HeldCertificate, ...]:
    """Return the times by another clock, which reads `by_s` more and shows `now`.

    A time in the future comes from a clock that was set back: it counts as `now`.
    """
    return tuple(
        HeldCertificate(certificate=one.certificate, since_s=min(now, one.since_s + by_s))
        for one in held
    )
