"""Evidence of a wrong sum convicts its signer, and nothing else convicts a member."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.averaging.sum_audit import (
    AUDITS_PER_ROUND,
    Evidence,
    Piece,
    decode_evidence,
    draw_audit_samples,
)
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import open_certificate
from protocol.codec import entries
from protocol.errors import PeerFault
from protocol.messages.envelope import sign
from protocol.messages.round import SliceResult
from tests.protocol.averaging.summed_round import FOUR, SLICE, Summed, SummedInGroups, shifted
from tests.protocol.rounds import CHUNKS, MANIFEST, Made, people


class JudgedRound(Summed):
    """A round whose evidence is judged by a node that has only the evidence."""

    def refused(self, evidence: Evidence) -> str:
        with pytest.raises(PeerFault) as fault:
            self.judge(evidence)
        assert fault.value.reason in {"bad_proof", "bad_certificate", "malformed", "unsigned"}
        return str(fault.value)


@pytest.mark.parametrize("codec", [entry.name for entry in entries()])
def test_an_honest_sum_convicts_nobody_in_any_chunk(codec: str) -> None:
    honest = JudgedRound(codec)
    borders = honest.made.plan.borders
    for index in range(len(FOUR)):
        for chunk in range(borders[index], borders[index + 1]):
            assert "is right" in honest.refused(honest.evidence(chunk, index=index))


@pytest.mark.parametrize("codec", [entry.name for entry in entries()])
def test_a_wrong_sum_convicts_its_reducer(codec: str) -> None:
    lied = JudgedRound(codec, wrong=shifted)
    for chunk in range(*lied.made.plan.borders[SLICE : SLICE + 2]):
        judgment = lied.judge(lied.evidence(chunk))
        assert (judgment.peer, judgment.number, judgment.slice) == (FOUR[SLICE].peer, 1, SLICE)
    for index in (0, 2, 3):
        assert "is right" in lied.refused(lied.evidence(lied.made.plan.borders[index], index=index))


def test_one_wrong_element_convicts_in_its_own_chunk_only() -> None:
    def nudge(mean: Vector) -> None:
        mean[-1] = np.nextafter(mean[-1], np.float32(np.inf))

    lied = JudgedRound(wrong=nudge)
    first, last = lied.made.plan.borders[SLICE : SLICE + 2]
    assert lied.judge(lied.evidence(last - 1)).peer == FOUR[SLICE].peer
    assert "is right" in lied.refused(lied.evidence(first))


def test_unsigned_bytes_convict_nobody() -> None:
    honest = JudgedRound()
    chunk = honest.made.plan.borders[SLICE]
    good = honest.evidence(chunk)
    other = honest.evidence(chunk + 1)
    forged = Piece(data=bytes(len(good.reduced.data)), proof=good.reduced.proof)
    assert "not chunk" in honest.refused(replace(good, reduced=forged))
    assert "not chunk" in honest.refused(replace(good, contributed=(forged, *good.contributed[1:])))
    assert "not chunk" in honest.refused(
        replace(good, contributed=(*good.contributed[1:], good.contributed[0]))
    )
    assert "not chunk" in honest.refused(replace(good, reduced=other.reduced))
    assert "not chunk" in honest.refused(replace(good, chunk=chunk + 1))
    assert "3 of 4" in honest.refused(replace(good, contributed=good.contributed[1:]))


def test_evidence_of_another_round_slice_or_signer_convicts_nobody() -> None:
    lied = JudgedRound(wrong=shifted)
    good = lied.evidence(lied.made.plan.borders[SLICE])
    claim = SliceResult(
        plan=lied.made.plan_signed.digest,
        inclusion=lied.made.inclusion_signed.digest,
        slice=SLICE,
        root=bytes(32),
    )
    assert "was not to sum" in lied.refused(replace(good, result=sign(FOUR[0], lied.run, claim)))
    assert "was not to sum" in lied.refused(replace(good, chunk=lied.made.plan.borders[SLICE + 1]))
    for changes in ({"inclusion": bytes(32)}, {"plan": bytes(32)}, {"slice": 7}):
        result = sign(FOUR[SLICE], lied.run, replace(claim, **changes))
        assert "not of the certificate" in lied.refused(replace(good, result=result))
    assert "signature" in lied.refused(
        replace(good, result=replace(good.result, signature=bytes(64)))
    )
    few = lied.made.raw(FOUR[:2])
    assert "no majority" in lied.refused(replace(good, certificate=few))


class JudgedGroups(SummedInGroups, JudgedRound):
    """The same with two groups."""


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_a_wrong_group_sum_convicts_its_signer_and_a_right_one_nobody(codec: str) -> None:
    honest, lied = JudgedGroups(codec), JudgedGroups(codec, wrong=shifted)
    assert len(honest.made.plan.groups) == 2
    for chunk in range(*honest.layout.slices[honest.index]):
        assert "is right" in honest.refused(honest.group_evidence(chunk))
        judgment = lied.judge(lied.group_evidence(chunk))
        assert (judgment.peer, judgment.slice) == (FOUR[lied.part].peer, lied.index)


def test_a_sum_that_the_plan_did_not_assign_convicts_nobody() -> None:
    lied = JudgedGroups(wrong=shifted)
    chunk = lied.layout.slices[lied.index][0]
    good = lied.group_evidence(chunk)
    other = next(i for i in range(len(FOUR)) if i not in lied.layout.counterparts[lied.part])
    assert "was not to sum" in lied.refused(lied.group_evidence(chunk, part=other))
    assert "was not to sum" in lied.refused(lied.group_evidence(chunk, slice=other))
    assert "not of the certificate" in lied.refused(lied.group_evidence(chunk, slice=9))
    assert "contributions" in lied.refused(
        replace(good, contributed=(*good.contributed, good.contributed[0]))
    )
    result = SliceResult(
        plan=lied.made.plan_signed.digest,
        inclusion=lied.made.inclusion_signed.digest,
        slice=lied.part,
        root=bytes(32),
    )
    assert "no single member answers" in lied.refused(
        replace(good, result=sign(FOUR[lied.part], lied.run, result))
    )
    ready = lied.made.plan.offers[lied.part]
    assert "is no sum" in lied.refused(replace(good, result=ready))


@given(st.binary(max_size=300))
@settings(max_examples=50)
def test_garbage_is_no_evidence(data: bytes) -> None:
    with pytest.raises(PeerFault, match="not evidence"):
        decode_evidence(data)


def test_each_member_draws_its_audits_and_about_two_audit_a_round() -> None:
    counts: list[int] = []
    where: set[tuple[int, int]] = set()
    eight = people(8)
    for seq in range(1, 61):
        made = Made(eight, seq=seq)
        certificate = open_certificate(made.raw(), made.run, MANIFEST, CHUNKS)
        drawn = [draw_audit_samples(person, certificate) for person in eight]
        assert drawn == [draw_audit_samples(person, certificate) for person in eight]
        counts.append(sum(len(one) for one in drawn))
        for me, one in enumerate(drawn):
            for sample in one:
                borders = made.plan.borders
                assert sample.slice != me
                assert borders[sample.slice] <= sample.chunk < borders[sample.slice + 1]
                where.add((me, sample.slice))
    assert abs(sum(counts) / len(counts) - AUDITS_PER_ROUND) < 0.5
    assert {slice_index for _, slice_index in where} == set(range(8))
    everything = draw_audit_samples(eight[0], certificate, everywhere=True)
    assert [one.slice for one in everything] == list(range(1, 8))
    stranger = people(9)
    assert all(
        draw_audit_samples(person, certificate) == [] for person in stranger if person not in eight
    )
