"""Tells a node's person why the run does not admit this node, while that is so."""

from __future__ import annotations

from collections.abc import Callable

from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.journal import JournalEvent, Trouble
from protocol.membership.admission import admission_fault
from protocol.membership.invitation import open_proof
from protocol.membership.invited import Invited
from protocol.membership.record import MembershipRecord
from protocol.run.manifest import Manifest

CODE = "NOT_ADMITTED"


class AdmissionWatch:
    """Records one `Trouble` when this node is not admitted, and its end."""

    def __init__(
        self,
        *,
        me: PeerId,
        run: Digest,
        manifest: Manifest,
        proof: bytes,
        record: Callable[[JournalEvent], None],
    ) -> None:
        """`proof` is this node's own; empty where it has none."""
        self._me, self._manifest, self._record = me, manifest, record
        self._invitation = _opened(proof, me, run, manifest)
        self._seen: MembershipRecord | None = None
        self._said = ""

    def look(self, record: MembershipRecord) -> None:
        """Judge this node by the record of its tip; nothing where it was judged by it before."""
        if record is self._seen:
            return
        self._seen = record
        why = admission_fault(record, self._manifest, self._me, self._invitation)
        if why == self._said:
            return
        self._said = why
        message = f"This node takes no part in the rounds: {why}." if why else ""
        self._record(Trouble(code=CODE, level="bad", message=message))


def _opened(proof: bytes, me: PeerId, run: Digest, manifest: Manifest) -> Invited | None:
    try:
        grant = open_proof(proof, me, run, manifest.owner)
    except PeerFault:
        return None
    return Invited(name=grant.name, uses=grant.uses, voters=grant.voters)
