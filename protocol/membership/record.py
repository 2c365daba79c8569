"""The membership record: all that a run's rules on votes remember of its certificates.

A certificate is judged by its parent's record. The record is a function of the manifest and of what
certificate hashes cover: plans, inclusions and outcomes. Local clocks, local audits and the votes
of one copy of a certificate are no part of it. So two nodes at one certificate hold one record,
whatever copies they saw. Every vote names the record's digest: a difference would show as a
divided vote, not as a silent fork.

`next_record.py` says how a certificate changes the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import msgspec

from protocol.digest import Digest, digest
from protocol.identity import PeerId
from protocol.messages.membership import MAX_VOTERS
from protocol.run.manifest import Manifest

ROUNDS_KEPT = 32
"""The certificates whose weights and step norms the record holds."""

TIPS_KEPT = 8
"""The last certificates after which a leave counts. A leave waits for at most a few plans."""

WAITS_KEPT = 16
"""The certificates in which a peer's last plan is looked for. A longer wait counts as this one."""

_DOMAIN = b"hypergpu/membership/1\0"

Statements = tuple[tuple[PeerId, bool], ...]
"""A voter's statements (subject, favours), the latest last; each subject once."""


class RecordedRound(msgspec.Struct, frozen=True, kw_only=True):
    """What the record holds of one certificate."""

    # The number of the certificate.
    number: int
    # Seconds of the round that the certificate ended.
    round_s: float
    # The weight of each contributor in the mean. None counts for a merge.
    weights: Mapping[PeerId, int]
    # The step norm that every vote named; 0 for a merge.
    step_norm: float


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """The peers that one invitation has admitted."""

    # In the order of (certificate, peer id).
    peers: tuple[PeerId, ...]
    # The most votes that these peers may hold together.
    voters: int


class MergedBranch(msgspec.Struct, frozen=True, kw_only=True):
    """A minority branch that a merge took in."""

    # The number of the merge.
    number: int
    # The voters of the common ancestor that stood on the branch.
    stood: tuple[PeerId, ...]


class MembershipRecord(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The voters and members after one certificate, and why. All peers are in ascending order."""

    voters: tuple[PeerId, ...]
    # Peers that the owner invited. Founders and allowlisted peers are members by the manifest.
    invited: tuple[PeerId, ...] = ()
    # By voter.
    statements: Mapping[PeerId, Statements] = {}
    # For each voter that missed plans: how many, since its last offer.
    absences: Mapping[PeerId, int] = {}
    # For trusted members without a vote: the certificates that listed them, up to as many as a vote
    # needs.
    listings: Mapping[PeerId, int] = {}
    # By the name of the invitation.
    invitations: Mapping[str, Admitted] = {}
    # Voters that left in order and have not offered since.
    left: tuple[PeerId, ...] = ()
    # The serial of each voter's last leave.
    leaves: Mapping[PeerId, int] = {}
    # Peers and invitations that the owner revoked.
    revoked: tuple[PeerId, ...] = ()
    # The number of the last certificate whose plan held a peer, for the last `WAITS_KEPT`.
    planned: Mapping[PeerId, int] = {}
    # The oldest first.
    recent: tuple[RecordedRound, ...] = ()
    # The hashes of the last certificates, the oldest first; at genesis, the run id.
    tips: tuple[Digest, ...]
    # Merges of the last `ROUNDS_KEPT` certificates with a branch of less standing.
    merged: tuple[MergedBranch, ...] = ()

    @cached_property
    def digest(self) -> Digest:
        """The name of the record, which every vote of the next round carries."""
        return digest(_DOMAIN, _encoder.encode(self))

    @cached_property
    def counted(self) -> tuple[PeerId, ...]:
        """The voters whose votes count: all that have not left. Never empty."""
        return tuple(peer for peer in self.voters if peer not in self.left) or self.voters

    @cached_property
    def said(self) -> Mapping[PeerId, Mapping[PeerId, bool]]:
        """By subject: what each voter says of it."""
        found: dict[PeerId, dict[PeerId, bool]] = {}
        for voter, statements in self.statements.items():
            for subject, favours in statements:
                found.setdefault(subject, {})[voter] = favours
        return found

    def speaks_for(self, peer: PeerId) -> int:
        """The voters that are for a peer."""
        return sum(self.said.get(peer, {}).values())

    def speaks_against(self, peer: PeerId) -> int:
        """The voters that are against a peer."""
        said = self.said.get(peer, {})
        return len(said) - sum(said.values())

    def weight_of(self, peer: PeerId) -> int:
        """The weight of a peer in the recent certificates."""
        return sum(each.weights.get(peer, 0) for each in self.recent)


_encoder = msgspec.msgpack.Encoder(order="deterministic")


def genesis_record(run: Digest, manifest: Manifest) -> MembershipRecord:
    """The record before the first certificate: the founders vote."""
    return MembershipRecord(voters=tuple(sorted(manifest.founders))[:MAX_VOTERS], tips=(run,))
