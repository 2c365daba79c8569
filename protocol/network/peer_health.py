"""Whom to leave out for a while: quarantine and probation, as one node keeps them of another.

trusted ── more than 70% of at least 5 rounds failed ──▶ quarantined ── 300 s ──▶ probation ── 3 successes ──▶ trusted
                                                              ▲                       │
                                                              └────── a failure ──────┘
"""

from __future__ import annotations

import msgspec

QUARANTINE_S = 300.0
FAILING = 0.7  # of the rounds remembered, and more
LEAST_ROUNDS = 5
REMEMBERED = 10  # rounds: what was long ago is forgiven
SUCCESSES = 3

TRUSTED, QUARANTINED, PROBATION = "trusted", "quarantined", "probation"


class PeerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What a node makes of a peer, and why.

    `outcomes` are of the last rounds, the newest last; True is a success.
    """

    name: str = TRUSTED
    reason: str = "nothing speaks against it"
    outcomes: tuple[bool, ...] = ()
    until_s: float = 0.0
    successes: int = 0

    @property
    def failed(self) -> int:
        return sum(not ok for ok in self.outcomes)


def saw(standing: PeerHealth, ok: bool, now: float) -> PeerHealth:
    """The standing after one more round in which the peer did what it owed, or did not (`now` in
    seconds, monotonic).
    """
    standing = look(standing, now)
    outcomes = (*standing.outcomes, ok)[-REMEMBERED:]
    failed = sum(not one for one in outcomes)
    if standing.name == QUARANTINED:
        # It is in no plan of ours: what is heard of it counts when it is over.
        return standing
    if standing.name == PROBATION:
        if not ok:
            return _quarantined(outcomes, "it failed again on probation", now)
        done = standing.successes + 1
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
    reason = (
        f"{failed} of its last {len(outcomes)} rounds failed"
        if failed
        else "nothing speaks against it"
    )
    return PeerHealth(reason=reason, outcomes=outcomes)


def look(standing: PeerHealth, now: float) -> PeerHealth:
    """The standing as time alone changes it."""
    if standing.name == QUARANTINED and now >= standing.until_s:
        return PeerHealth(
            name=PROBATION,
            reason=f"{QUARANTINE_S:g} s of quarantine are over; {SUCCESSES} successes are wanted",
        )
    return standing


def _quarantined(outcomes: tuple[bool, ...], why: str, now: float) -> PeerHealth:
    return PeerHealth(
        name=QUARANTINED,
        reason=f"{why}: left out for {QUARANTINE_S:g} s",
        outcomes=outcomes,
        until_s=now + QUARANTINE_S,
    )
