"""How long a node waits for a quorum before a part of the voters may go on.

A full certificate carries votes of more than half of the parent's voters. A degraded certificate
carries fewer. A node signs, assembles and follows a degraded certificate only when it is patient.
Two voters of a hundred would otherwise lead everybody away from the other 98.

Patience is local: it says when a node acts, never whether a certificate is valid.
"""

from __future__ import annotations

import msgspec

# Longer than a restart of a machine, and than most losses of a connection.
GRACE_S = 120.0
# With rounds of minutes, a voter that missed one round is not yet gone.
GRACE_ROUNDS = 2.0
# One voter alone may be any key, also a stolen one. An hour with the default grace lets the owner
# of the run notice it.
LONE_VOTER_GRACES = 30.0
# Of at most two voters, one is the largest part that the crash of the other leaves. Ten minutes
# with the default grace: the crash of one of two friends must not stop the other for an hour.
LONE_OF_TWO_GRACES = 5.0
# The voters that sign after one grace.
ENOUGH_VOTERS = 2


def grace_of(configured_s: float | None, round_s: float) -> float:
    """The grace of a run, in seconds.

    Args:
        configured_s: what the manifest names; None for the default.
        round_s: the length of a round after the node's tip.
    """
    return max(GRACE_S, GRACE_ROUNDS * round_s) if configured_s is None else configured_s


def is_full(signers: int, voters: int) -> bool:
    """Whether `signers` voters are a quorum: more than half of the parent's `voters`."""
    return 2 * signers > voters


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How patient one node is. Times are seconds of the node's monotonic clock."""

    # The later one of the node's start and its last adoption of a full certificate.
    since: float
    grace_s: float
    # The parent's voters.
    voters: int

    def wait_s(self, signers: int) -> float:
        """Seconds from `since` on until this node accepts a certificate of `signers` voters.

        It is 0 for a full certificate, and infinite for one that no voter signed.
        """
        if signers < 1:
            return float("inf")
        if is_full(signers, self.voters):
            return 0.0
        if signers >= ENOUGH_VOTERS:
            return self.grace_s
        lone = LONE_OF_TWO_GRACES if self.voters <= ENOUGH_VOTERS else LONE_VOTER_GRACES
        return lone * self.grace_s

    def patient_at(self, signers: int) -> float:
        """When this node accepts a certificate of `signers` of the parent's voters."""
        wait_s = self.wait_s(signers)
        return self.since + wait_s if wait_s else 0.0

    def is_patient(self, signers: int, now: float) -> bool:
        """Whether this node accepts a certificate of `signers` of the parent's voters now."""
        return self.wait_s(signers) == 0.0 or now >= self.patient_at(signers)
