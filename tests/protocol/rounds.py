"""Rounds for tests, with real signers, offers, plans, inclusions, votes and certificates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from msgspec.structs import replace

from protocol.certificates.certificate import assemble, open_certificate
from protocol.certificates.leader_order import leader_of, leader_order, voter_order
from protocol.certificates.next_tip import extend
from protocol.certificates.tip import Tip, genesis, genesis_of
from protocol.digest import Digest, digest
from protocol.identity import PeerId, Signer
from protocol.messages.base import Message, Signed
from protocol.messages.envelope import sign
from protocol.messages.offer import Ready, TrustReady
from protocol.messages.round import Inclusion, Plan, Vote
from protocol.planning.outcome import TrustFields, vote_for
from protocol.planning.plan import OpenPlan, PlanTrust, make_plan, open_plan, read_plan
from protocol.run.manifest import Group, Limits, Manifest, seal

MANIFEST = Manifest(
    name="tests",
    task="nothing",
    group=Group(min_peers=2, max_group=8),
    limits=Limits(max_samples=1000),
)
RUN: Digest = seal(MANIFEST).run
CHUNKS = 10


@lru_cache
def signer(i: int) -> Signer:
    """Return person `i`, the same in every test."""
    return Signer(digest(b"person", bytes([i])))


@lru_cache
def people(count: int) -> tuple[Signer, ...]:
    """Return the first `count` people in the order of a plan's members: by peer id."""
    return tuple(sorted((signer(i) for i in range(count)), key=lambda person: person.peer))


def named(word: str) -> Digest:
    """Return a digest that stands for `word`."""
    return digest(word.encode())


def ready(
    tip: Tip,
    person: Signer,
    *,
    view: int = 0,
    seq: int = 1,
    samples: int = 10,
    loss: float | None = 2.0,
) -> Ready:
    """Return the offer of one person, of the kind that the tip's run has."""
    kind = Ready if tip.record is None else TrustReady
    return kind(
        parent=tip.hash,
        view=view,
        number=tip.number + 1,
        seq=seq,
        samples=samples,
        contribution=digest(b"contribution", person.public_key, seq.to_bytes(8, "big")),
        loss=loss,
        fingerprint=digest(b"endpoint", person.public_key),
        uplink_bps=0,
        downlink_bps=0,
    )


def offers_of(
    tip: Tip,
    persons: Iterable[Signer],
    *,
    view: int = 0,
    seq: int = 1,
    samples: int = 10,
    run: Digest = RUN,
) -> list[tuple[Signed, Ready]]:
    """Return the signed offers of all `persons`."""
    made = [(person, ready(tip, person, view=view, seq=seq, samples=samples)) for person in persons]
    return [(sign(person, run, offer), offer) for person, offer in made]


def leader_among(tip: Tip, persons: Sequence[Signer], view: int, run: Digest = RUN) -> Signer:
    """Return the leader of `view` after `tip`; at genesis all of `persons` are candidates."""
    order = leader_order(tip.hash, tip.members or [person.peer for person in persons])
    if tip.record is not None:
        order = voter_order(run, tip.record.counted, tip.number + 1)
    leader: PeerId = leader_of(order, view)
    return next(person for person in persons if person.peer == leader)


class Made:
    """One round of `persons` after `tip`, as its leader and voters would make it.

    A test can replace each part before it makes the next one.
    """

    def __init__(
        self,
        persons: Sequence[Signer],
        tip: Tip | None = None,
        *,
        view: int = 0,
        seq: int = 1,
        samples: int = 10,
        run: Digest = RUN,
        manifest: Manifest = MANIFEST,
        chunks: int = CHUNKS,
        contributions: Mapping[PeerId, Digest] | None = None,
        parent_votes: tuple[tuple[PeerId, bytes], ...] = (),
    ) -> None:
        """Make the round; `contributions` are the roots of the offers where the bytes matter.

        `parent_votes` are what a plan of rules 4 lists.
        """
        self.run = run
        self.manifest = manifest
        self.tip = tip or genesis_of(run, manifest)
        self.leader = leader_among(self.tip, persons, view, run)
        offers = offers_of(self.tip, persons, view=view, seq=seq, samples=samples, run=run)
        if contributions is not None:
            real = [
                (person, replace(offer, contribution=contributions[person.peer]))
                for person, (_, offer) in zip(persons, offers, strict=True)
            ]
            offers = [(sign(person, run, offer), offer) for person, offer in real]
        self.plan: Plan = make_plan(
            self.tip.hash,
            view,
            self.tip.number + 1,
            offers,
            manifest,
            chunks,
            leader=self.leader.peer,
            round_s=self.tip.round_s,
            trust=PlanTrust(run=run, record=self.tip.record, parent_votes=parent_votes)
            if self.tip.record is not None
            else None,
        )
        self.plan_signed = self.signed(self.plan)
        self.persons = [
            person
            for person in persons
            if person.peer in {offer.peer for offer in self.plan.offers}
        ]
        everybody = tuple(range(len(self.plan.offers)))
        self.inclusion = Inclusion(
            plan=self.plan_signed.digest,
            number=1,
            contributors=everybody,
            present=everybody,
            owners=everybody,
            reason="",
        )
        self.inclusion_signed = self.signed(self.inclusion)
        record = self.tip.record
        self.vote: Vote = vote_for(
            read_plan(self.plan_signed, run, manifest, chunks, trusted=True),
            (self.tip.hash,),
            self.inclusion_signed.digest,
            named("result"),
            named("state"),
            TrustFields(record=record.digest, step_norm=1.0) if record is not None else None,
        )

    def signed(self, message: Message, person: Signer | None = None) -> Signed:
        """Sign a message as the leader, or as `person`."""
        return sign(person or self.leader, self.run, message)

    def with_inclusion(self, **changes: object) -> Made:
        """Change the inclusion, and the vote with it."""
        self.inclusion = replace(self.inclusion, **changes)
        self.inclusion_signed = self.signed(self.inclusion)
        self.vote = replace(self.vote, inclusion=self.inclusion_signed.digest)
        return self

    def votes(self, persons: Sequence[Signer] | None = None) -> dict[PeerId, bytes]:
        """Return the signatures under the vote."""
        return {
            person.peer: sign(person, self.run, self.vote).signature
            for person in (self.persons if persons is None else persons)
        }

    def raw(self, persons: Sequence[Signer] | None = None) -> bytes:
        """Return the certificate with the votes of `persons`, by default of all members."""
        return assemble(self.vote, self.plan_signed, self.inclusion_signed, self.votes(persons))

    def open_plan(self) -> OpenPlan:
        return open_plan(self.plan_signed, RUN, MANIFEST, CHUNKS)

    def next_tip(self) -> Tip:
        return extend(self.tip, open_certificate(self.raw(), RUN, MANIFEST, CHUNKS))


def chain(length: int, persons: int = 4) -> list[Tip]:
    """Return the tips of a lineage in which all members contribute to every round."""
    tips = [genesis(RUN)]
    for seq in range(1, length + 1):
        tips.append(Made(people(persons), tips[-1], seq=seq).next_tip())
    return tips
