"""A round of four with real bytes: what its reducers made of them, rightly or not, and the evidence
of it.
"""

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

PARAMETERS = (CHUNKS - 1) * CHUNK_ELEMENTS + 77  # the last chunk is short
FOUR = people(4)
SLICE = 1  # reduced by FOUR[1]


class Summed:
    """The round. `wrong` changes what the reducer of `SLICE` signs."""

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
        said = SliceResult(
            plan=self.made.plan_signed.digest,
            inclusion=self.made.inclusion_signed.digest,
            slice=index,
            root=root,
        )
        return sign(FOUR[index], self.run, said), encoded

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


class SummedInRows(Summed):
    """The same four in two rows of two, and the sum that member `part` signed of slice `index`,
    which the other of its rank finishes.
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

    def row_evidence(self, chunk: int, **said: int) -> Evidence:
        """Of a chunk of that sum. `said` replaces what its signer says of it."""
        first, last = self.layout.slices[self.index]
        start, stop = element_range(first, last, PARAMETERS)
        row = [
            FOUR[i]
            for i in self.certificate.contributors
            if self.layout.group_of[i] == self.layout.group_of[self.part]
        ]
        at, size = first * chunk_bytes(self.codec), self.codec.size(stop - start)
        mean = np.empty(stop - start, np.float32)
        weighted_mean(
            [(10, self.encoded[person.peer][at : at + size]) for person in row], self.codec, mean
        )
        if self._wrong is not None:
            self._wrong(mean)
        of_row, encoded = codec_named(GROUP_CODEC), mean.astype("<f4").tobytes()
        root = merkle_root(leaves_of(encoded, chunk_bytes(of_row)))
        about = {"part": self.part, "slice": self.index, **said}
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
            reduced=result_piece(encoded, of_row, chunk - first),
            contributed=tuple(
                piece_of(self.encoded[p.peer], self.trees[p.peer], self.codec, chunk) for p in row
            ),
        )


def shifted(mean: Vector) -> None:
    mean += np.float32(1.0)
