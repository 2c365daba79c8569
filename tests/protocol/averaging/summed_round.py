"""A round of four members with real bytes, right and wrong sums, and evidence of both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from protocol.averaging.judgment import Judgment, judge
from protocol.averaging.reduction import GROUP_CODEC, weighted_mean
from protocol.averaging.sum_audit import (
    Evidence,
    decode_evidence,
    encode_evidence,
    piece_of,
    result_piece,
)
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector, element_range
from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.tip import genesis
from protocol.codec import chunk_bytes, codec_named
from protocol.digest import Buffer, leaves_of, levels_of, merkle_root, root_of
from protocol.messages.base import Signed
from protocol.messages.envelope import sign
from protocol.messages.round import GroupSum, SliceResult
from protocol.run.manifest import Group, Manifest, seal
from tests.protocol.rounds import CHUNKS, MANIFEST, Made, people

# The last chunk is short.
PARAMETERS = (CHUNKS - 1) * CHUNK_ELEMENTS + 77
FOUR = people(4)
# FOUR[1] reduces this slice.
SLICE = 1


class Summed:
    """A summed round; `wrong` changes the sum that the reducer of `SLICE` signs."""

    def __init__(
        self,
        codec: str = "float32",
        *,
        wrong: Callable[[Vector], None] | None = None,
        manifest: Manifest = MANIFEST,
    ) -> None:
        self.manifest = replace(manifest, codec=codec)
        self.run = seal(self.manifest).run
        self.codec = codec_named(codec)
        rng = np.random.default_rng(7)
        vectors = {person.peer: rng.standard_normal(PARAMETERS, np.float32) for person in FOUR}
        self.encoded = {peer: self.codec.encode(vector) for peer, vector in vectors.items()}
        self.trees = {
            peer: levels_of(leaves_of(data, chunk_bytes(self.codec)))
            for peer, data in self.encoded.items()
        }
        roots = {peer: root_of(tree) for peer, tree in self.trees.items()}
        self.made = Made(
            FOUR, genesis(self.run), run=self.run, manifest=self.manifest, contributions=roots
        )
        self.certificate = self._certified()
        self.results = self._results(wrong)

    def _results(self, wrong: Callable[[Vector], None] | None) -> dict[int, tuple[Signed, Buffer]]:
        return {i: self._reduced(i, wrong if i == SLICE else None) for i in range(len(FOUR))}

    def _certified(self) -> OpenCertificate:
        return open_certificate(self.made.raw(), self.run, self.manifest, CHUNKS)

    def _reduced(self, index: int, wrong: Callable[[Vector], None] | None) -> tuple[Signed, Buffer]:
        borders = self.made.plan.borders
        start, stop = element_range(borders[index], borders[index + 1], PARAMETERS)
        first, last = (
            borders[index] * chunk_bytes(self.codec),
            borders[index] * chunk_bytes(self.codec) + self.codec.size(stop - start),
        )
        mean = np.empty(stop - start, np.float32)
        weighted_mean(
            [(10, self.encoded[person.peer][first:last]) for person in FOUR], self.codec, mean
        )
        if wrong is not None:
            wrong(mean)
        encoded = self.codec.result.encode(mean)
        root = merkle_root(leaves_of(encoded, chunk_bytes(self.codec.result)))
        result = SliceResult(
            plan=self.made.plan_signed.digest,
            inclusion=self.made.inclusion_signed.digest,
            slice=index,
            root=root,
        )
        return sign(FOUR[index], self.run, result), encoded

    def evidence(self, chunk: int, *, index: int = SLICE) -> Evidence:
        signed, encoded = self.results[index]
        return Evidence(
            certificate=self.certificate.raw,
            result=signed,
            chunk=chunk,
            reduced=result_piece(encoded, self.codec, chunk - self.made.plan.borders[index]),
            contributed=tuple(
                piece_of(self.encoded[p.peer], self.trees[p.peer], self.codec, chunk) for p in FOUR
            ),
        )

    def judge(self, evidence: Evidence) -> Judgment:
        return judge(
            decode_evidence(encode_evidence(evidence)), self.run, self.manifest, PARAMETERS
        )


class SummedInGroups(Summed):
    """The same four members in two groups of two.

    Member `part` signs the group's sum of slice `index`, which its counterpart finishes.
    """

    def __init__(
        self, codec: str = "float32", *, wrong: Callable[[Vector], None] | None = None
    ) -> None:
        super().__init__(
            codec, wrong=wrong, manifest=replace(MANIFEST, group=Group(min_peers=2, max_group=2))
        )
        self.layout = self.certificate.plan.layout
        self.part = 0
        self.index = next(i for i in self.layout.counterparts[self.part] if i != self.part)

    def _results(self, wrong: Callable[[Vector], None] | None) -> dict[int, tuple[Signed, Buffer]]:
        self._wrong = wrong
        return {}

    def group_evidence(self, chunk: int, **claims: int) -> Evidence:
        """Return the evidence of one chunk; `claims` replace fields of the signed group sum."""
        first, last = self.layout.slices[self.index]
        start, stop = element_range(first, last, PARAMETERS)
        group = [
            FOUR[i]
            for i in self.certificate.contributors
            if self.layout.group_of[i] == self.layout.group_of[self.part]
        ]
        at, size = first * chunk_bytes(self.codec), self.codec.size(stop - start)
        mean = np.empty(stop - start, np.float32)
        weighted_mean(
            [(10, self.encoded[person.peer][at : at + size]) for person in group], self.codec, mean
        )
        if self._wrong is not None:
            self._wrong(mean)
        group_codec, encoded = codec_named(GROUP_CODEC), mean.astype("<f4").tobytes()
        root = merkle_root(leaves_of(encoded, chunk_bytes(group_codec)))
        about = {"part": self.part, "slice": self.index, **claims}
        summed = GroupSum(
            plan=self.made.plan_signed.digest,
            inclusion=self.made.inclusion_signed.digest,
            root=root,
            **about,
        )
        return Evidence(
            certificate=self.certificate.raw,
            result=sign(FOUR[self.part], self.run, summed),
            chunk=chunk,
            reduced=result_piece(encoded, group_codec, chunk - first),
            contributed=tuple(
                piece_of(self.encoded[p.peer], self.trees[p.peer], self.codec, chunk) for p in group
            ),
        )


def shifted(mean: Vector) -> None:
    mean += np.float32(1.0)
