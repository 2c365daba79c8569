"""Which votes make a certificate.

**Full**: signed by more than half of the parent's voters, and by `min_peers` members of the plan in
all. **Degraded**: signed by at least one voter, and by `min_peers` in all. Nothing else is a
certificate, whatever number of keys signed it. A node follows a degraded certificate only when it
is patient (`patience.py`).
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from protocol.identity import PeerId
from protocol.membership.patience import is_full
from protocol.membership.record import MembershipRecord


class Quorum(msgspec.Struct, frozen=True, kw_only=True):
    """The votes that count for one plan."""

    voters: frozenset[PeerId]
    # `min_peers` of the manifest.
    least: int

    def voting(self, signers: Collection[PeerId]) -> int:
        """How many of the signers are voters that count."""
        return len(self.voters.intersection(signers))

    def is_full(self, signers: Collection[PeerId]) -> bool:
        """Whether the votes of these members of the plan are a full certificate."""
        return len(signers) >= self.least and is_full(self.voting(signers), len(self.voters))

    def is_degraded(self, signers: Collection[PeerId]) -> bool:
        """Whether they are at least a degraded certificate."""
        return len(signers) >= self.least and self.voting(signers) > 0


def quorum_of(
    record: MembershipRecord,
    members: Collection[PeerId],
    away: Collection[PeerId],
    least: int,
) -> Quorum:
    """The votes that count for a plan of `members` that lists leaves or revocations of `away`.

    A voter that left does not count, unless it is in the plan: its offer takes the leave back.
    """
    gone = {*record.left, *away}.difference(members)
    voters = frozenset(record.voters)
    return Quorum(voters=voters - gone or voters, least=least)
