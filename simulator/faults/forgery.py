"""Makes certificates of chosen keys after a real tip: well formed, well signed, and made by nobody.

Whether such a certificate is one depends on the keys alone: keys without a vote make none, and keys
with a vote make one without a quorum.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from protocol.certificates.certificate import Certificate, assemble, certificate_hash
from protocol.certificates.leader_order import leader_of, voter_order
from protocol.certificates.tip import Tip
from protocol.digest import Digest, digest
from protocol.identity import PeerId, Signer
from protocol.membership.record import MembershipRecord, genesis_record
from protocol.messages.envelope import sign
from protocol.messages.offer import TrustReady
from protocol.messages.round import Inclusion
from protocol.planning.outcome import TrustFields, vote_for
from protocol.planning.plan import PlanTrust, make_plan, read_plan
from protocol.run.founders import with_founders
from protocol.run.manifest import Manifest


class Forgery(msgspec.Struct, frozen=True, kw_only=True):
    """What a forged certificate claims."""

    # The digest of the state that it names.
    state: Digest
    # What each of its members claims to have trained.
    samples: int
    step_norm: float = 1.0
    # The votes for its parent that its plan lists.
    parent_votes: tuple[tuple[PeerId, bytes], ...] = ()


def own_record(run: Digest, manifest: Manifest, signers: Sequence[Signer]) -> MembershipRecord:
    """The record in which these keys are the run's founders. No other node holds it."""
    nobody = msgspec.structs.replace(manifest, founders=())
    return genesis_record(run, with_founders(nobody, [one.peer for one in signers]))


def name_of(run: Digest, raw: bytes) -> Digest:
    """The hash of a forged certificate."""
    return certificate_hash(run, msgspec.msgpack.decode(raw, type=Certificate).outcome)


def leading_view(run: Digest, tip: Tip, signers: Sequence[Signer]) -> int | None:
    """The first view after `tip` that one of these keys leads; None where none has a vote."""
    if tip.record is None:
        return 0
    peers = {one.peer for one in signers}
    order = voter_order(run, tip.record.counted, tip.number + 1)
    return next((view for view in range(len(order)) if leader_of(order, view) in peers), None)


def forge(
    run: Digest,
    manifest: Manifest,
    tip: Tip,
    signers: Sequence[Signer],
    chunks: int,
    forgery: Forgery,
    record: MembershipRecord | None = None,
) -> bytes:
    """Return a certificate after `tip` that these keys plan, lead and sign.

    Args:
        run: the run's id.
        manifest: the run's manifest.
        tip: the parent.
        signers: at least `min_peers` keys.
        chunks: of the run's model.
        forgery: what the certificate claims.
        record: the membership record that the plan and the votes go by; by default the parent's.
    """
    signers = sorted(signers, key=lambda one: one.peer)
    by_record = tip.record if record is None else record
    assert by_record is not None, "runs of rules 4 have a record"
    number = tip.number + 1
    view = leading_view(run, tip, signers) or 0
    leads = leader_of(voter_order(run, by_record.counted, number), view)
    leader = next((one for one in signers if one.peer == leads), signers[0])
    offers = []
    for one in signers:
        offer = TrustReady(
            parent=tip.hash,
            view=view,
            number=number,
            seq=tip.last_seq.get(one.peer, 0) + 1,
            samples=forgery.samples,
            contribution=digest(b"nothing"),
            loss=0.01,
            fingerprint=digest(b"none"),
            uplink_bps=0,
            downlink_bps=0,
        )
        offers.append((sign(one, run, offer), offer))
    plan = make_plan(
        tip.hash,
        view,
        number,
        offers,
        manifest,
        chunks,
        leader=leader.peer,
        before=tip.layout,
        round_s=tip.round_s,
        trust=PlanTrust(run=run, record=by_record, parent_votes=forgery.parent_votes),
    )
    plan_signed = sign(leader, run, plan)
    opened = read_plan(plan_signed, run, manifest, chunks, trusted=True)
    everybody = tuple(range(len(signers)))
    inclusion = sign(
        leader,
        run,
        Inclusion(
            plan=plan_signed.digest,
            number=1,
            contributors=everybody,
            present=everybody,
            owners=everybody,
            reason="",
        ),
    )
    vote = vote_for(
        opened,
        (tip.hash,),
        inclusion.digest,
        digest(b"result"),
        forgery.state,
        TrustFields(record=by_record.digest, step_norm=forgery.step_norm),
    )
    return assemble(
        vote, plan_signed, inclusion, {one.peer: sign(one, run, vote).signature for one in signers}
    )
