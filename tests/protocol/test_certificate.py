"""Certificates: only an outcome that a majority signed opens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.certificates.certificate import (
    Certificate,
    OpenCertificate,
    assemble,
    certificate_hash,
    open_certificate,
)
from protocol.certificates.next_tip import extend, trust_rules
from protocol.certificates.tip import genesis, genesis_of
from protocol.digest import Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.journal import REFUSALS
from protocol.messages.base import MAX_MESSAGE_BYTES
from protocol.messages.envelope import payload_of, sign
from protocol.messages.round import Inclusion, Vote
from protocol.planning.plan import OpenPlan, open_plan
from protocol.rules.registry import RULE_SETS, rule_set
from protocol.run.founders import with_founders
from protocol.run.manifest import Manifest, seal
from tests.protocol.rounds import CHUNKS, MANIFEST, RUN, Made, named, people

FIVE = people(5)
START = genesis(RUN)


def opened(raw: bytes, chunks: int | None = CHUNKS) -> OpenCertificate:
    return open_certificate(raw, RUN, MANIFEST, chunks)


def refused(raw: bytes, reason: str = "bad_certificate") -> str:
    with pytest.raises(PeerFault) as fault:
        opened(raw)
    assert fault.value.reason == reason
    return str(fault.value)


def changed(raw: bytes, **changes: object) -> bytes:
    """Return the certificate with some of its parts replaced."""
    return msgspec.msgpack.encode(replace(msgspec.msgpack.decode(raw, type=Certificate), **changes))


def test_a_certificate_opens_to_what_was_agreed() -> None:
    made = Made(FIVE)
    certificate = opened(made.raw())
    assert certificate.outcome == made.vote
    assert certificate.voters == tuple(person.peer for person in FIVE)
    assert certificate.listed == {person.peer: 1 for person in FIVE}
    assert certificate.samples == 50
    assert certificate.loss == pytest.approx(2.0)
    assert certificate.hash == certificate_hash(RUN, payload_of(made.vote))
    assert opened(made.raw(), chunks=None) == certificate
    assert open_certificate(made.raw(), RUN, MANIFEST, CHUNKS, trusted=True) == certificate


@pytest.mark.parametrize("version", sorted(RULE_SETS))
def test_the_plan_of_a_certificate_is_not_made_again(
    version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader trusts a plan that a majority certified.

    Before the fix, one changed character in a tie rule made nine certified rounds look forged, and
    the node deleted their checkpoints.
    """
    manifest = with_founders(replace(MANIFEST, rules=version), [one.peer for one in FIVE])
    run = seal(manifest).run
    trust = trust_rules(run, manifest)
    # 11 chunks among 5 members: the tie rule decides who gets one of them.
    first = Made(FIVE, genesis_of(run, manifest), run=run, manifest=manifest, chunks=11)
    tip = extend(first.tip, open_certificate(first.raw(), run, manifest, 11), trust=trust)
    rules = rule_set(version)

    def ties_to_the_last(chunks: int, shares: Sequence[float]) -> tuple[int, ...]:
        return tuple(
            chunks - border for border in reversed(rules.share_out(chunks, list(reversed(shares))))
        )

    monkeypatch.setitem(RULE_SETS, version, replace(rules, share_out=ties_to_the_last))
    with pytest.raises(PeerFault, match="does not follow from its offers"):
        open_plan(first.plan_signed, run, manifest, 11, first.tip.record)
    opened = open_certificate(first.raw(), run, manifest, 11)
    assert extend(first.tip, opened, trust=trust) == tip
    monkeypatch.setitem(
        RULE_SETS,
        version,
        replace(rules, leader_order=_nobody_leads, check_inclusion=_no_inclusion_fits),
    )
    with pytest.raises(PeerFault, match="no inclusion"):
        open_certificate(first.raw(), run, manifest, 11)
    read_back = open_certificate(first.raw(), run, manifest, 11, trusted=True)
    assert extend(first.tip, read_back, trusted=True, trust=trust) == tip, (
        "a certificate that this node verified stays valid under changed rules"
    )
    if trust is None:
        # From rules 4 on, the record says who leads.
        with pytest.raises(PeerFault, match="does not lead"):
            extend(first.tip, read_back)
    with pytest.raises(PeerFault, match="does not follow"):
        extend(tip, read_back, trusted=True)


def _nobody_leads(parent: Digest, candidates: Iterable[PeerId]) -> tuple[PeerId, ...]:
    return ("nobody",)


def _no_inclusion_fits(
    inclusion: Inclusion, plan: OpenPlan, manifest: Manifest, *, merging: bool = False
) -> None:
    raise PeerFault("bad_plan", "no inclusion fits")


def test_any_majority_makes_the_same_certificate() -> None:
    made = Made(FIVE)
    hashes = {
        opened(made.raw(voters)).hash for count in (3, 4, 5) for voters in combinations(FIVE, count)
    }
    assert hashes == {opened(made.raw()).hash}


def test_a_certificate_with_too_few_votes_is_refused() -> None:
    made = Made(FIVE)
    assert "2 votes are no majority of 5" in refused(made.raw(FIVE[:2]))
    assert "0 votes" in refused(made.raw([]))
    pair = Made(people(2))
    assert "1 votes are no majority of 2" in refused(pair.raw(people(2)[:1]))


def test_a_strangers_vote_is_refused() -> None:
    made = Made(people(3))
    stranger = next(person for person in people(9) if person not in people(3))
    assert "not in the plan" in refused(made.raw([*people(3)[:2], stranger]))


def test_a_double_vote_is_refused() -> None:
    raw = Made(people(3)).raw(people(3)[:1])
    vote = msgspec.msgpack.decode(raw, type=Certificate).votes[0]
    assert "votes twice" in refused(changed(raw, votes=(vote, vote)))


def test_votes_for_another_outcome_and_forged_votes_are_refused() -> None:
    made = Made(people(3))
    votes = made.votes()
    other = sign(people(3)[0], RUN, replace(made.vote, state=named("other"))).signature
    for signature in (other, bytes(64), votes[people(3)[1].peer]):
        forged = {**votes, people(3)[0].peer: signature}
        assert "is not signed by it" in refused(
            assemble(made.vote, made.plan_signed, made.inclusion_signed, forged)
        )
    elsewhere = sign(people(3)[0], named("another run"), made.vote).signature
    assert "is not signed by it" in refused(
        assemble(
            made.vote,
            made.plan_signed,
            made.inclusion_signed,
            {**votes, people(3)[0].peer: elsewhere},
        )
    )


def test_another_inclusion_or_plan_than_the_votes_name_is_refused() -> None:
    made = Made(people(4))
    raw = made.raw()
    other_inclusion = made.signed(replace(made.inclusion, reason="another"))
    assert "the votes name another plan or inclusion" in refused(
        changed(raw, inclusion=other_inclusion)
    )
    other_plan = made.signed(replace(made.plan, reason="another"))
    assert "the votes name another plan or inclusion" in refused(changed(raw, plan=other_plan))
    assert "the votes name another plan or inclusion" in refused(
        Made(people(4)).with_inclusion(plan=named("another plan")).raw()
    )


def test_an_inclusion_that_the_leader_did_not_sign_is_refused() -> None:
    made = Made(people(4))
    other = next(person for person in people(4) if person is not made.leader)
    made.inclusion_signed = made.signed(made.inclusion, other)
    assert "not from the plan's leader" in refused(made.raw())


@pytest.mark.parametrize(
    "changes", [{"number": 2}, {"view": 1}, {"parents": (named("elsewhere"),)}]
)
def test_votes_for_another_round_than_the_plans_are_refused(changes: dict[str, object]) -> None:
    made = Made(people(3))
    made.vote = replace(made.vote, **changes)
    assert "another round than the plan" in refused(made.raw())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"contributors": (1, 0)}, "in order"),
        ({"contributors": (0, 0, 1)}, "in order"),
        ({"contributors": (0, 4)}, "not members"),
        ({"present": (0, 1, 2, 9)}, "not members"),
        ({"contributors": ()}, "without contributors"),
        (
            {"contributors": (0, 3), "present": (0, 1, 2), "owners": (0, 1, 2, 0)},
            "2 contributors among 3 present",
        ),
        (
            {"contributors": (0,), "present": (0,), "owners": (0, 0, 0, 0)},
            "1 contributors among 1 present",
        ),
        ({"owners": (0, 1, 2)}, "do not own"),
        ({"contributors": (0,), "present": (0, 1, 2), "owners": (0, 1, 2, 3)}, "do not own"),
    ],
)
def test_an_inclusion_that_does_not_fit_its_plan_is_refused(
    changes: dict[str, object], why: str
) -> None:
    assert why in refused(Made(people(4)).with_inclusion(**changes).raw(), "bad_plan")


def test_an_inclusion_that_counts_an_empty_offer_is_refused() -> None:
    idle = Made(people(4), samples=0, seq=0)
    assert "offered nothing" in refused(idle.raw(), "bad_plan")


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_certificate_with_any_changed_bit_is_refused(place: float, bit: int) -> None:
    raw = bytearray(Made(people(3)).raw())
    raw[int(place * len(raw))] ^= 1 << bit
    with pytest.raises(PeerFault) as fault:
        opened(bytes(raw))
    assert fault.value.reason in REFUSALS


@given(
    st.binary(max_size=300)
    | st.sampled_from(
        [b"\x91" * 100_000, b"\x95" + Made(people(2)).raw()[1:] + b"\x91" * 100_000 + b"\xc0"]
    )
)
def test_noise_is_no_certificate(data: bytes) -> None:
    refused(data, "malformed")


def test_a_certificate_that_is_too_large_is_refused() -> None:
    refused(bytes(MAX_MESSAGE_BYTES + 1), "oversized")


def test_all_voters_sign_the_same_bytes() -> None:
    """The digest of these bytes names the certificate."""
    vote = Made(people(3)).vote
    assert msgspec.msgpack.decode(payload_of(vote), type=Vote) == vote
    assert {person.peer: sign(person, RUN, vote).payload for person in people(3)} == {
        person.peer: payload_of(vote) for person in people(3)
    }
