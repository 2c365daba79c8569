"""Which statements a voter's next offer carries."""

from __future__ import annotations

from collections.abc import Mapping

from protocol.identity import PeerId
from protocol.membership.record import MembershipRecord
from protocol.messages.membership import MAX_STATEMENTS, Statement


def statements_to_make(
    record: MembershipRecord, voter: PeerId, opinions: Mapping[PeerId, bool]
) -> tuple[Statement, ...]:
    """Return the statements of a voter that the record does not have yet.

    Args:
        record: the record after the voter's tip.
        voter: the voter. A peer without a vote says nothing.
        opinions: for each subject, whether the voter is for it.

    Returns:
        Up to `MAX_STATEMENTS`, those against a peer first. The rest waits for the next offer.
    """
    if voter not in record.voters:
        return ()
    said = dict(record.statements.get(voter, ()))
    new = [
        Statement(subject=subject, favours=favours)
        for subject, favours in sorted(opinions.items(), key=lambda item: (item[1], item[0]))
        if said.get(subject) is not favours and subject != voter
    ]
    return tuple(new[:MAX_STATEMENTS])
