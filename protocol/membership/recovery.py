"""Where a run goes on after its owner's recovery (rules 4).

The owner signs a certificate to go on from and who votes then. The recovery is a step of the
lineage of its own: rounds after it name it as their parent. So every later certificate shows by its
ancestry that it follows the owner's word, and a branch of the same certificates without it does
not. The state is that of the named certificate.
"""

from __future__ import annotations

from msgspec.structs import replace

from protocol.certificates.tip import Tip
from protocol.digest import Digest, digest
from protocol.messages.envelope import payload_of
from protocol.messages.membership import Recovery

_DOMAIN = b"hypergpu/recovery/1\0"


def recovery_name(run: Digest, recovery: Recovery) -> Digest:
    """The name of a recovery in the lineage."""
    return digest(_DOMAIN, run, payload_of(recovery))


def recovered_tip(tip: Tip, name: Digest, recovery: Recovery) -> Tip:
    """The tip from which the run goes on.

    Statements, absences and leaves before the recovery count no more: the owner says who votes.

    Args:
        tip: the tip of the certificate that the recovery names.
        name: the name of the recovery.
        recovery: the owner's record.
    """
    record = tip.record
    if record is None:
        return replace(tip, hash=name)
    voters = tuple(sorted({*recovery.voters} - {*record.revoked})) or tuple(sorted(recovery.voters))
    invited = tuple(sorted({*record.invited, *voters} - {*record.revoked}))
    after = replace(
        record,
        voters=voters,
        invited=invited,
        statements={},
        absences={},
        listings={},
        left=(),
        tips=(name,),
        merged=(),
    )
    return replace(tip, hash=name, record=after, outcome=b"")
