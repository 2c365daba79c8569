"""Evidence of a wrong sum convicts who signed it, and nothing else convicts anybody."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.audit import (
    AUDITS_PER_ROUND,
    Evidence,
    Piece,
    Verdict,
    decode_evidence,
    draw,
    encode_evidence,
    judge,
    piece_of,
    result_piece,
)
from protocol.certificate import OpenCertificate, genesis, open_certificate
from protocol.codec import CODECS, chunk_bytes, codec_named
from protocol.digest import Buffer, leaves_of, levels_of, merkle_root, root_of
from protocol.errors import PeerFault
from protocol.layout import CHUNK_ELEMENTS, element_range
from protocol.manifest import seal
from protocol.messages import Signed, SliceResult, sign
from protocol.ports import Vector
from protocol.reduction import weighted_mean
from tests.protocol.rounds import CHUNKS, MANIFEST, Made, people

PARAMETERS = (CHUNKS - 1) * CHUNK_ELEMENTS + 77  # the last chunk is short
FOUR = people(4)
SLICE = 1  # reduced by FOUR[1]


class Summed:
    """A round of four with real bytes, and what its reducers made of them."""

    def __init__(self, codec: str = "float32", *, wrong: Callable[[Vector], None] | None = None) -> None:
        self.manifest = replace(MANIFEST, codec=codec)
        self.run = seal(self.manifest).run
        self.codec = codec_named(codec)
        rng = np.random.default_rng(7)
        vectors = {person.peer: rng.standard_normal(PARAMETERS, np.float32) for person in FOUR}
        self.encoded = {peer: self.codec.encode(vector) for peer, vector in vectors.items()}
        self.trees = {peer: levels_of(leaves_of(data, chunk_bytes(self.codec))) for peer, data in self.encoded.items()}
        roots = {peer: root_of(tree) for peer, tree in self.trees.items()}
        self.made = Made(FOUR, genesis(self.run), run=self.run, manifest=self.manifest, contributions=roots)
        self.certificate = self._certified()
        self.results = {i: self._reduced(i, wrong if i == SLICE else None) for i in range(len(FOUR))}

    def _certified(self) -> OpenCertificate:
        return open_certificate(self.made.raw(), self.run, self.manifest, CHUNKS)

    def _reduced(self, index: int, wrong: Callable[[Vector], None] | None) -> tuple[Signed, Buffer]:
        borders = self.made.plan.borders
        start, stop = element_range(borders[index], borders[index + 1], PARAMETERS)
        first, last = borders[index] * chunk_bytes(self.codec), borders[index] * chunk_bytes(self.codec) + self.codec.size(stop - start)
        mean = np.empty(stop - start, np.float32)
        weighted_mean([(10, self.encoded[person.peer][first:last]) for person in FOUR], self.codec, mean)
        if wrong is not None:
            wrong(mean)
        encoded = self.codec.result.encode(mean)
        root = merkle_root(leaves_of(encoded, chunk_bytes(self.codec.result)))
        said = SliceResult(plan=self.made.plan_signed.digest, cut=self.made.cut_signed.digest, slice=index, root=root)
        return sign(FOUR[index], self.run, said), encoded

    def evidence(self, chunk: int, *, index: int = SLICE) -> Evidence:
        signed, encoded = self.results[index]
        return Evidence(
            certificate=self.certificate.raw,
            result=signed,
            chunk=chunk,
            reduced=result_piece(encoded, self.codec, chunk - self.made.plan.borders[index]),
            contributed=tuple(piece_of(self.encoded[p.peer], self.trees[p.peer], self.codec, chunk) for p in FOUR),
        )

    def judge(self, evidence: Evidence) -> Verdict:
        return judge(decode_evidence(encode_evidence(evidence)), self.run, self.manifest, PARAMETERS)

    def refused(self, evidence: Evidence) -> str:
        with pytest.raises(PeerFault) as fault:
            self.judge(evidence)
        assert fault.value.reason in {"bad_proof", "bad_certificate", "malformed", "unsigned"}
        return str(fault.value)


def shifted(mean: Vector) -> None:
    mean += np.float32(1.0)


@pytest.mark.parametrize("codec", CODECS)
def test_an_honest_sum_convicts_nobody_in_any_chunk(codec: str) -> None:
    honest = Summed(codec)
    borders = honest.made.plan.borders
    for index in range(len(FOUR)):
        for chunk in range(borders[index], borders[index + 1]):
            assert "is right" in honest.refused(honest.evidence(chunk, index=index))


@pytest.mark.parametrize("codec", CODECS)
def test_a_wrong_sum_convicts_its_reducer(codec: str) -> None:
    lied = Summed(codec, wrong=shifted)
    for chunk in range(*lied.made.plan.borders[SLICE : SLICE + 2]):
        verdict = lied.judge(lied.evidence(chunk))
        assert (verdict.peer, verdict.number, verdict.slice) == (FOUR[SLICE].peer, 1, SLICE)
    for index in (0, 2, 3):
        assert "is right" in lied.refused(lied.evidence(lied.made.plan.borders[index], index=index))


def test_one_wrong_element_is_enough_and_only_where_it_is() -> None:
    def nudge(mean: Vector) -> None:
        mean[-1] = np.nextafter(mean[-1], np.float32(np.inf))

    lied = Summed(wrong=nudge)
    first, last = lied.made.plan.borders[SLICE : SLICE + 2]
    assert lied.judge(lied.evidence(last - 1)).peer == FOUR[SLICE].peer
    assert "is right" in lied.refused(lied.evidence(first))


def test_nobody_is_convicted_by_bytes_that_were_not_signed() -> None:
    honest = Summed()
    chunk = honest.made.plan.borders[SLICE]
    good = honest.evidence(chunk)
    other = honest.evidence(chunk + 1)
    forged = Piece(data=bytes(len(good.reduced.data)), proof=good.reduced.proof)
    assert "not chunk" in honest.refused(replace(good, reduced=forged))
    assert "not chunk" in honest.refused(replace(good, contributed=(forged, *good.contributed[1:])))
    assert "not chunk" in honest.refused(replace(good, contributed=(*good.contributed[1:], good.contributed[0])))
    assert "not chunk" in honest.refused(replace(good, reduced=other.reduced))
    assert "not chunk" in honest.refused(replace(good, chunk=chunk + 1))
    assert "3 of 4" in honest.refused(replace(good, contributed=good.contributed[1:]))


def test_nobody_is_convicted_for_another_round_slice_or_name() -> None:
    lied = Summed(wrong=shifted)
    good = lied.evidence(lied.made.plan.borders[SLICE])
    said = SliceResult(plan=lied.made.plan_signed.digest, cut=lied.made.cut_signed.digest, slice=SLICE, root=bytes(32))
    assert "was not to sum" in lied.refused(replace(good, result=sign(FOUR[0], lied.run, said)))
    assert "was not to sum" in lied.refused(replace(good, chunk=lied.made.plan.borders[SLICE + 1]))
    for changes in ({"cut": bytes(32)}, {"plan": bytes(32)}, {"slice": 7}):
        result = sign(FOUR[SLICE], lied.run, replace(said, **changes))
        assert "not of the certificate" in lied.refused(replace(good, result=result))
    assert "signature" in lied.refused(replace(good, result=replace(good.result, signature=bytes(64))))
    few = lied.made.raw(FOUR[:2])
    assert "no majority" in lied.refused(replace(good, certificate=few))


@given(st.binary(max_size=300))
@settings(max_examples=50)
def test_garbage_is_no_evidence(data: bytes) -> None:
    with pytest.raises(PeerFault, match="not evidence"):
        decode_evidence(data)


def test_each_member_draws_for_itself_and_about_two_look_in_a_round() -> None:
    looked: list[int] = []
    where: set[tuple[int, int]] = set()
    eight = people(8)
    for seq in range(1, 61):
        made = Made(eight, seq=seq)
        certificate = open_certificate(made.raw(), made.run, MANIFEST, CHUNKS)
        drawn = [draw(person, certificate) for person in eight]
        assert drawn == [draw(person, certificate) for person in eight]
        looked.append(sum(len(one) for one in drawn))
        for me, one in enumerate(drawn):
            for look in one:
                borders = made.plan.borders
                assert look.slice != me
                assert borders[look.slice] <= look.chunk < borders[look.slice + 1]
                where.add((me, look.slice))
    assert abs(sum(looked) / len(looked) - AUDITS_PER_ROUND) < 0.5
    assert {look for _, look in where} == set(range(8))
    everything = draw(eight[0], certificate, everywhere=True)
    assert [one.slice for one in everything] == list(range(1, 8))
    stranger = people(9)
    assert all(draw(person, certificate) == [] for person in stranger if person not in eight)
