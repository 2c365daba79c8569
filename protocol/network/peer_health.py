"""Which peers a node leaves out for a while: quarantine and probation.

trusted      ── more than 70% of at least 5 rounds failed ──▶  quarantined
quarantined  ── 300 s ──▶  probation
probation    ── 3 successes ──▶  trusted
probation    ── a failure ──▶  quarantined
"""

from __future__ import annotations

import msgspec

QUARANTINE_S = 300.0
FAILING = 0.7
"""The share of the remembered rounds above which a peer is quarantined."""

LEAST_ROUNDS = 5
REMEMBERED = 10
"""Rounds that count. Older failures are forgiven."""

SUCCESSES = 3

TRUSTED, QUARANTINED, PROBATION = "trusted", "quarantined", "probation"


class PeerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What a node concludes of a peer, and why.

    `outcomes` are those of the last rounds, the newest last; True is a success.
    """

    name: str = TRUSTED
    reason: str = "no failures"
    outcomes: tuple[bool, ...] = ()
    until_s: float = 0.0
    successes: int = 0

    @property
    def failed(self) -> int:
        return sum(not ok for ok in self.outcomes)


def saw(health: PeerHealth, ok: bool, now: float) -> PeerHealth:
    """Return the health after one more round.

    Args:
        health: the health before the round.
        ok: whether the peer delivered what it owed.
        now: seconds, monotonic.
    """
    health = look(health, now)
    outcomes = (*health.outcomes, ok)[-REMEMBERED:]
    failed = sum(not one for one in outcomes)
    if health.name == QUARANTINED:
        # This node plans nothing with the peer now: its rounds count after the quarantine.
        return health
    if health.name == PROBATION:
        if not ok:
            return _quarantined(outcomes, "it failed again on probation", now)
        done = health.successes + 1
        if done < SUCCESSES:
            return PeerHealth(
                name=PROBATION,
                reason=f"{done} of {SUCCESSES} successes on probation",
                outcomes=outcomes,
                successes=done,
            )
        return PeerHealth(
            reason=f"{SUCCESSES} successes on probation", outcomes=(True,) * SUCCESSES
        )
    if len(outcomes) >= LEAST_ROUNDS and failed > FAILING * len(outcomes):
        return _quarantined(outcomes, f"{failed} of its last {len(outcomes)} rounds failed", now)
    reason = f"{failed} of its last {len(outcomes)} rounds failed" if failed else "no failures"
    return PeerHealth(reason=reason, outcomes=outcomes)


def look(health: PeerHealth, now: float) -> PeerHealth:
    """Return the health as time alone changes it."""
    if health.name == QUARANTINED and now >= health.until_s:
        return PeerHealth(
            name=PROBATION,
            reason=f"{QUARANTINE_S:g} s of quarantine are over; {SUCCESSES} successes are needed",
        )
    return health


def _quarantined(outcomes: tuple[bool, ...], why: str, now: float) -> PeerHealth:
    return PeerHealth(
        name=QUARANTINED,
        reason=f"{why}: left out for {QUARANTINE_S:g} s",
        outcomes=outcomes,
        until_s=now + QUARANTINE_S,
    )
