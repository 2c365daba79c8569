"""The sums of a plan of rules 4: terms, groups, audits and the limit of the step."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from protocol.averaging.clip import MOST_FLOORS, RATIO
from protocol.averaging.judgment import Claim, is_right
from protocol.averaging.outer_step import outer_step
from protocol.averaging.plan_sum import PlanSum, contributor_weights, step_terms
from protocol.averaging.plan_terms import check_terms, plan_terms
from protocol.averaging.replay import limited, step_state
from protocol.averaging.sum_audit import Evidence, Piece, result_piece
from protocol.averaging.vector_layout import Vector, element_range
from protocol.averaging.weights import weights_in
from protocol.certificates.certificate import OpenCertificate
from protocol.codec import codec_named
from protocol.contribution.ledger import Ledger
from protocol.errors import PeerFault
from protocol.journal import Contributor
from protocol.messages.round import Plan, TrustPlan
from protocol.messages.sum_terms import SumTerms
from protocol.planning.plan import OpenPlan
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Outer
from protocol.status.round_text import bounded
from tests.protocol.averaging.summed_round import FOUR, PARAMETERS, Summed, SummedInGroups

EVERYONE = (0, 1, 2, 3)


def _terms(norm: float = 0.0, **fields: object) -> SumTerms:
    terms = SumTerms(weights=(10,) * 4, voters=EVERYONE, median=10, norm=norm)
    return replace(terms, **fields)


def _trusted(plan: OpenPlan, terms: SumTerms, policy: str = "open") -> OpenPlan:
    fields = {name: getattr(plan.plan, name) for name in Plan.__struct_fields__}
    made = TrustPlan(**fields, round_s=5.0, terms=terms)
    return replace(plan, plan=made, rules=RULES_4, policy=policy)


def _certificate(summed: Summed, terms: SumTerms) -> OpenCertificate:
    return replace(summed.certificate, plan=_trusted(summed.certificate.plan, terms))


def test_plan_terms_follow_from_what_is_remembered() -> None:
    own = [[(10, 5.0)] * 8, [(10, 5.0)] * 8, [(40, 5.0)] * 8, []]
    terms = plan_terms(
        samples=[20, 500, 90, 0],
        voters=[2, 0],
        newcomers=[1],
        own=own,
        norms=[2.0] * 9,
        round_s=10.0,
        policy="open",
    )
    # m is 20. The second is bounded by 2 m, the third by 2 m and not by its own 2 h of 160.
    assert terms == SumTerms(
        weights=(20, 40, 40, 0), voters=(0, 2), newcomers=(1,), median=20, norm=20.0
    )
    assert plan_terms([5], [0], [], [[]], [2.0] * 7, 10.0, "open").norm == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": (10, 10, 10)},
        {"weights": (10, 10, 10, 11)},
        {"weights": (10, 10, 10, 0)},
        {"voters": (1, 0)},
        {"voters": (4,)},
        {"newcomers": (1, 1)},
    ],
)
def test_check_terms_refuses_what_no_sum_could_use(wrong: dict[str, tuple[int, ...]]) -> None:
    check_terms(_terms(), [10] * 4)
    with pytest.raises(PeerFault, match="do not fit"):
        check_terms(_terms(**wrong), [10] * 4)


def test_weights_of_a_plan_before_rules_4_are_its_samples() -> None:
    plan = Summed().certificate.plan
    assert contributor_weights(plan, EVERYONE) == (10, 10, 10, 10)
    capped = _trusted(plan, _terms(weights=(10, 4, 4, 4)))
    assert contributor_weights(capped, (0, 1, 3)) == (10, 4, 4)
    assert step_terms(plan, EVERYONE).usual is None
    assert step_terms(capped, EVERYONE).usual == 0.0


def _lengthened(summed: Summed, member: int, times: float) -> None:
    """Make one member's contribution longer, after the plan was made."""
    peer = FOUR[member].peer
    vector = np.empty(PARAMETERS, np.float32)
    summed.codec.decode(summed.encoded[peer], vector)
    summed.encoded[peer] = summed.codec.encode(vector * np.float32(times))


@pytest.mark.parametrize("codec", ["float32", "int8", "topk"])
@pytest.mark.parametrize("kind", [Summed, SummedInGroups])
def test_the_audit_of_a_chunk_recomputes_the_clipped_sum(codec: str, kind: type[Summed]) -> None:
    """What a reducer made of its whole slice, an auditor makes of one chunk of all inputs."""
    summed = kind(codec)
    _lengthened(summed, 2, 40.0)
    usual = PARAMETERS**0.5 / 5
    certificate = _certificate(summed, _terms(norm=usual))
    parts = {i: summed.encoded[FOUR[i].peer] for i in EVERYONE}
    whole, plain = np.empty(PARAMETERS, np.float32), np.empty(PARAMETERS, np.float32)
    sums = PlanSum(certificate.plan, EVERYONE, PARAMETERS)
    sums.mean_by_plan(parts, summed.codec, whole)
    PlanSum(summed.certificate.plan, EVERYONE, PARAMETERS).mean_by_plan(parts, summed.codec, plain)
    assert np.linalg.norm(whole) < np.linalg.norm(plain) / 2
    for index, (first, last) in enumerate(certificate.plan.layout.slices):
        start, stop = element_range(first, last, PARAMETERS)
        encoded = summed.codec.result.encode(whole[start:stop].copy())
        claim = Claim(
            peer=FOUR[index].peer,
            slice=index,
            first=first,
            last=last,
            root=b"",
            contributors=EVERYONE,
            group=False,
            alone=True,
        )
        for chunk in range(first, last):
            made = _evidence(summed, encoded, chunk, first)
            assert is_right(certificate, claim, summed.codec, PARAMETERS, made)
            # A mean that clips nothing is a wrong sum, and so is one with another factor.
            assert not is_right(summed.certificate, claim, summed.codec, PARAMETERS, made)
            other = _certificate(summed, _terms(norm=usual / 30, voters=(0,)))
            assert not is_right(other, claim, summed.codec, PARAMETERS, made)


def _evidence(summed: Summed, encoded: bytes, chunk: int, first: int) -> Evidence:
    begin, end = element_range(chunk, chunk + 1, PARAMETERS)
    at, behind = summed.codec.size(begin), summed.codec.size(end)
    return Evidence(
        certificate=b"",
        result=summed.made.plan_signed,
        chunk=chunk,
        reduced=result_piece(encoded, summed.codec, chunk - first),
        contributed=tuple(
            Piece(data=bytes(summed.encoded[person.peer][at:behind]), proof=()) for person in FOUR
        ),
    )


def _mean_in_groups(lengths: list[float], norm: float) -> Vector:
    """The mean of two groups of two, whose contributions have these lengths."""
    summed = SummedInGroups()
    for member, times in enumerate(lengths):
        _lengthened(summed, member, times)
    certificate = _certificate(summed, _terms(norm=norm))
    out = np.empty(PARAMETERS, np.float32)
    PlanSum(certificate.plan, EVERYONE, PARAMETERS).mean_by_plan(
        {i: summed.encoded[FOUR[i].peer] for i in EVERYONE}, summed.codec, out
    )
    return out


def test_a_group_of_evil_voters_is_bounded_by_floors_and_by_the_other_groups() -> None:
    """Story trust-two-levels."""
    group = SummedInGroups().certificate.plan.layout.groups[0]
    usual = PARAMETERS**0.5
    evil = [1e6 if member in group else 1.0 for member in range(4)]
    poisoned = float(np.linalg.norm(_mean_in_groups(evil, usual).astype(np.float64)))
    # Within the group, B is at most 8 F. Two means of that length are half of the sum.
    assert poisoned <= RATIO * MOST_FLOORS * usual / 2 + usual
    honest = float(np.linalg.norm(_mean_in_groups([1.0] * 4, usual).astype(np.float64)))
    assert honest == pytest.approx(usual / 2, rel=0.1)


def test_members_that_the_owner_trusts_may_differ_in_length_as_in_weight() -> None:
    """A machine with 50 times the samples moves further (rule 14)."""
    summed = Summed()
    _lengthened(summed, 2, 40.0)
    parts = {i: summed.encoded[FOUR[i].peer] for i in EVERYONE}
    terms = _terms(norm=PARAMETERS**0.5, weights=(10, 10, 500, 10))
    certificate = replace(
        summed.certificate, plan=_trusted(summed.certificate.plan, terms, "invite")
    )
    found, wanted = np.empty(PARAMETERS, np.float32), np.zeros(PARAMETERS, np.float32)
    PlanSum(certificate.plan, EVERYONE, PARAMETERS).mean_by_plan(parts, summed.codec, found)
    codec_named("float32").mean(
        [(weight, parts[i]) for i, weight in enumerate((10, 10, 500, 10))], wanted
    )
    assert found.tobytes() == wanted.tobytes()


def test_a_long_mean_is_scaled_down_before_the_outer_step() -> None:
    mean = np.random.default_rng(3).standard_normal(PARAMETERS, np.float32)
    usual = float(np.linalg.norm(mean.astype(np.float64))) / 30

    def decoded(start: int, out: Vector) -> Vector:
        return mean[start : start + out.size]

    assert limited(decoded, PARAMETERS, None) == (1.0, 0.0)
    factor, norm = limited(decoded, PARAMETERS, usual)
    assert (factor, norm) == (pytest.approx(0.1), 3 * usual)
    before = tuple(np.zeros(PARAMETERS, np.float32) for _ in range(2))
    after = tuple(np.empty(PARAMETERS, np.float32) for _ in range(2))
    kept = mean.copy()
    step_state(
        (before[0], before[1]),
        decoded,
        (after[0], after[1]),
        step=outer_step,
        outer=Outer(learning_rate=1.0, momentum=0.0),
        rounds=1.0,
        factor=factor,
    )
    assert np.array_equal(after[0], -(mean * np.float32(factor)))
    assert np.array_equal(mean, kept), "the results in memory stay as they are"


def test_the_offer_of_a_fast_card_settles_whole_and_says_what_was_dropped() -> None:
    """Story trust-fast-card-ledger: 50 times the samples of seven others, in an open run.

    Work that caps took from would become the average of ever older rounds.
    """
    ledger = Ledger(PARAMETERS, codec_named("float32"), 1_000_000, 3)
    own: list[list[tuple[int, float]]] = [[] for _ in range(8)]
    random = np.random.default_rng(8)
    for _ in range(40):
        ledger.add(random.standard_normal(PARAMETERS, np.float32), 500)
        offer = ledger.make_offer()
        samples = [offer.weight, *[10] * 7]
        terms = plan_terms(samples, range(8), (), own, (), 20.0, "open")
        weights = weights_in(terms.weights, (), range(8), "open")
        assert weights == (20, *[10] * 7)
        for history, weight in zip(own, weights, strict=True):
            history.append((weight, 20.0))
        assert ledger.settle(offer.seq) == 0
        assert ledger.pending == 0
        assert not ledger.residue.any(), "nothing of this round is in the next offer"
    shown = bounded(Contributor(peer="fast", samples=500, loss=None, weight=weights[0]))
    assert shown == "20 of 500 samples counted"
