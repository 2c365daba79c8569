"""Checks a certificate by content: its state must follow from its parent's state and its offers.

The world sees every offer when it is made, before any other node receives it. It makes the
mean of those bytes twice. `protocol.averaging.reduction` must give the certified state bit for bit.
An independent mean in float64 must agree within rounding.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from protocol.averaging.outer_step import state_digest
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.merge import merge_vectors
from protocol.codec import codec_named
from protocol.contribution.offer import Offer
from protocol.digest import Buffer, Digest
from protocol.identity import PeerId, short
from protocol.membership.branch_merge import MergeShare, merge_into
from protocol.rules.registry import rules_of
from protocol.run.manifest import Manifest, Outer
from simulator.certified_mean import certified_mean

# Relative to the largest value of a contribution. 64 float32 additions and a division stay below
# 2^-17.
ROUNDING = 1e-5

State = tuple[Vector, Vector]


class Absorption(msgspec.Struct, frozen=True, kw_only=True):
    """How one branch absorbs the other in a merge of rules 4."""

    share: MergeShare
    # Whether the first parent is the one with more standing.
    first_absorbs: bool


class Contents:
    """The offers and the states of one run, as the world saw them."""

    def __init__(self, manifest: Manifest) -> None:
        self._codec = codec_named(manifest.codec)
        self._outer_step = rules_of(manifest).outer_step
        self._offers: dict[tuple[PeerId, int], tuple[int, Buffer]] = {}
        self._states: dict[Digest, State] = {}

    def offered(self, peer: PeerId, offer: Offer) -> str:
        """Record an offer that its node made.

        Returns what is wrong with it: one seq must never name two offers.
        """
        if not offer.seq:
            return ""
        made = (offer.weight, offer.encoded)
        known = self._offers.setdefault((peer, offer.seq), made)
        return (
            ""
            if known == made
            else f"{short(peer)} made two different offers under seq {offer.seq}"
        )

    def last_offers(self, but: PeerId, parameters: int) -> tuple[Vector, ...]:
        """The last offer of each peer but one, decoded, in the order of the peers' names."""
        last: dict[PeerId, int] = {}
        for peer, seq in self._offers:
            if peer != but:
                last[peer] = max(seq, last.get(peer, 0))
        found = []
        for peer, seq in sorted(last.items()):
            out = np.empty(parameters, np.float32)
            self._codec.decode(self._offers[peer, seq][1], out)
            found.append(out)
        return tuple(found)

    def knows(self, tip: Digest) -> bool:
        return tip in self._states

    def keep(self, tip: Digest, value: Vector, momentum: Vector) -> None:
        """Record the state of a tip that has no known parent: genesis, or the first tip seen."""
        self._states[tip] = (value.copy(), momentum.copy())

    def check(
        self,
        certificate: OpenCertificate,
        outer: Outer,
        weights: tuple[int, int] | Absorption,
        value: Vector,
        momentum: Vector,
    ) -> str:
        """What is wrong with a node's state for this certificate; empty when nothing is.

        `outer` are the outer rules of the round, `weights` those of a merge,
        or under rules 4 how one branch absorbs the other.
        """
        parents = [self._states.get(parent) for parent in certificate.outcome.parents]
        self.keep(certificate.hash, value, momentum)
        known = [parent for parent in parents if parent is not None]
        if len(known) < len(parents):
            return ""
        if len(known) == 2:
            return self._check_merge(certificate, known[0], known[1], weights)
        listed = [
            (certificate.plan.members[i], certificate.plan.offers[i].seq)
            for i in certificate.contributors
        ]
        missing = [
            f"{short(peer)} seq {seq}" for peer, seq in listed if (peer, seq) not in self._offers
        ]
        if missing:
            return (
                f"certificate {certificate.outcome.number} lists what was never offered: "
                f"{', '.join(missing)}"
            )
        parts = [self._offers[one] for one in listed]
        for (weight, _), i in zip(parts, certificate.contributors, strict=True):
            if weight != certificate.plan.offers[i].samples:
                return (
                    f"certificate {certificate.outcome.number} counts "
                    f"{certificate.plan.offers[i].samples} samples where {weight} were offered"
                )
        encoded = {i: data for i, (_, data) in zip(certificate.contributors, parts, strict=True)}
        mean = certified_mean(certificate, encoded, self._codec, known[0][0].size)
        wrong = self._check_bits(certificate, outer, known[0], mean.value)
        if not wrong and mean.plain:
            wrong = self._check_float64(certificate, outer, known[0], parts, momentum)
        return wrong

    def _check_merge(
        self,
        certificate: OpenCertificate,
        first: State,
        second: State,
        weights: tuple[int, int] | Absorption,
    ) -> str:
        merged = tuple(np.empty_like(part) for part in first)
        if isinstance(weights, Absorption):
            p, q = (first, second) if weights.first_absorbs else (second, first)
            merge_into(p[0], q[0], weights.share, merged[0])
            if state_digest(merged[0], p[1]) == certificate.outcome.state:
                return ""
            return f"merge {certificate.outcome.number} is not what standing makes of its parents"
        for one, two, out in zip(first, second, merged, strict=True):
            merge_vectors(one, two, weights, out)
        if state_digest(*merged) != certificate.outcome.state:
            return (
                f"merge {certificate.outcome.number} is not the mean of its parents weighted "
                f"{weights[0]} to {weights[1]}"
            )
        return ""

    def _check_bits(
        self, certificate: OpenCertificate, outer: Outer, parent: State, mean: Vector
    ) -> str:
        """Repeat the members' own arithmetic.

        It does not depend on where the vector is cut into slices.
        """
        out = np.empty_like(mean), np.empty_like(mean)
        self._outer_step(*parent, mean, outer, *out, rounds=certificate.rounds)
        if state_digest(*out) != certificate.outcome.state:
            return (
                f"the state of certificate {certificate.outcome.number} does not follow from "
                f"the {len(certificate.contributors)} offers that it lists"
            )
        return ""

    def _check_float64(
        self,
        certificate: OpenCertificate,
        outer: Outer,
        parent: State,
        parts: list[tuple[int, Buffer]],
        momentum: Vector,
    ) -> str:
        """Compare what entered the momentum with the weighted mean in float64.

        Neither uses a line of the code under test.
        """
        if not self._codec.lossless:
            return ""
        entered = (
            momentum.astype(np.float64) - np.float64(np.float32(outer.momentum)) * parent[1]
        ) * certificate.rounds
        values = [(weight, np.frombuffer(data, "<f4").astype(np.float64)) for weight, data in parts]
        total = sum(weight for weight, _ in values)
        mean: npt.NDArray[np.float64] = (
            sum((weight * value for weight, value in values), np.zeros_like(entered)) / total
        )
        scale = max(
            1.0,
            float(np.abs(parent[1]).max()),
            *(float(np.abs(value).max()) for _, value in values),
        )
        worst = float(np.abs(entered - mean).max())
        if worst > ROUNDING * scale:
            return (
                f"certificate {certificate.outcome.number} holds another mean than that of the "
                f"offers it lists: {worst:g} apart at {scale:g}"
            )
        return ""
