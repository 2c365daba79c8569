"""Runs of rules 4 for tests: manifests, and certificates as the record sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from protocol.digest import Digest, digest
from protocol.identity import PeerId
from protocol.membership.facts import OfferFacts, RecordFacts
from protocol.membership.invited import Invited
from protocol.membership.next_record import next_record
from protocol.membership.record import MembershipRecord, genesis_record
from protocol.messages.membership import Statement
from protocol.run.manifest import Admission, Group, Limits, Manifest, Trust, seal
from protocol.run.manifest_parts import AdmissionPolicy
from tests.protocol.rounds import people, signer

PEERS: tuple[PeerId, ...] = tuple(person.peer for person in people(40))


def manifest_of(
    founders: Iterable[PeerId],
    policy: AdmissionPolicy = "open",
    trust: Trust | None = None,
    allowed: tuple[PeerId, ...] = (),
) -> Manifest:
    """Return a manifest of rules 4 with these founders."""
    return Manifest(
        name="votes",
        task="nothing",
        rules=4,
        owner=signer(0).peer if policy == "invite" else "",
        group=Group(min_peers=2, max_group=32),
        limits=Limits(max_samples=1000),
        founders=tuple(sorted(founders)),
        admission=Admission(policy=policy, allowed=allowed),
        trust=trust or Trust(),
    )


def run_of(manifest: Manifest) -> Digest:
    """Return the run's id."""
    return seal(manifest, signer(0) if manifest.owner else None).run


class History:
    """A run whose certificates a test writes down."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.record: MembershipRecord = genesis_record(run_of(manifest), manifest)
        self.number = 0

    @property
    def voters(self) -> set[PeerId]:
        return set(self.record.voters)

    def certify(
        self,
        offering: Iterable[PeerId],
        *,
        weights: Mapping[PeerId, int] | None = None,
        statements: Mapping[PeerId, Mapping[PeerId, bool]] | None = None,
        invited: Mapping[PeerId, Invited] | None = None,
        leaves: Mapping[PeerId, int] | None = None,
        revoked: Iterable[PeerId] = (),
        times: int = 1,
    ) -> MembershipRecord:
        """Add certificates whose plan holds `offering`; all contribute, with weight 10 by default.

        `statements` are said in the first of them alone.
        """
        offering = tuple(offering)
        for _ in range(times):
            self.number += 1
            facts = RecordFacts(
                hash=digest(self.record.digest, self.number.to_bytes(8, "big")),
                number=self.number,
                round_s=20.0,
                offers={
                    peer: OfferFacts(
                        statements=tuple(
                            Statement(subject=subject, favours=favours)
                            for subject, favours in (statements or {}).get(peer, {}).items()
                        ),
                        invited=(invited or {}).get(peer),
                    )
                    for peer in offering
                },
                weights=dict.fromkeys(offering, 10) if weights is None else weights,
                step_norm=1.0,
                leaves=leaves or {},
                revoked=frozenset(revoked),
            )
            self.record = next_record(self.record, facts, self.manifest)
            statements = None
        return self.record
