"""How the branch with more standing absorbs another one.

P is the branch with more standing, Q the other one. With n = the fewer certificates of the two
since their common ancestor, and the weight w and the standing s of each branch's first n:

    sigma = min(wQ / (wP + wQ), sQ / (sP + sQ))          0/0 counts as 1/2
    c     = min(1, L / |Q - P|)
    L     = 2 lr / (1 - momentum) x travel of P
    state = P + sigma c (Q - P)                          the momentum is P's

sigma gives each branch its share of what both did in the same number of rounds, so a branch gains
nothing by many small certificates. A branch of few voters gains nothing by large claims of weight.
L is twice the way that P can have moved: the outer optimizer turns a mean of norm g into at most
lr / (1 - momentum) g. A branch whose state lies further away counts only by its direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from protocol.averaging.vector_layout import Vector
from protocol.identity import PeerId
from protocol.membership.standing import Branch, standing
from protocol.run.manifest_parts import Outer

# A private branch that merged in every round would mint weight and appoint voters. A voter stands
# on at most one merged minority branch in so many certificates.
MERGE_SPACING = 32
# Elements that one pass of a merge computes: they stay in a processor's cache.
PASS_ELEMENTS = 1 << 16


class MergeShare(msgspec.Struct, frozen=True, kw_only=True):
    """How far a merge moves from P towards Q."""

    # The share of the way, 0 to 1/2 between branches of equal standing.
    sigma: float
    # The longest distance |Q - P| that counts whole.
    limit: float
    # The certificates of each branch that were compared.
    compared: int


def share_of(numerator: float, other: float) -> float:
    """`numerator` / (`numerator` + `other`), where 0/0 is 1/2."""
    return numerator / (numerator + other) if numerator + other else 0.5


def merge_share(
    p: Branch, q: Branch, ancestor_voters: frozenset[PeerId], outer: Outer
) -> MergeShare:
    """Say how far the merge of Q into P moves, by the numbers of both branches.

    `outer` are the outer rules of P's tip.
    """
    compared = min(len(p.steps), len(q.steps))
    first_p, first_q = p.first(compared), q.first(compared)
    by_weight = share_of(first_q.weight, first_p.weight)
    by_standing = share_of(
        len(standing(_listed(first_q), ancestor_voters)),
        len(standing(_listed(first_p), ancestor_voters)),
    )
    return MergeShare(
        sigma=min(by_weight, by_standing),
        limit=2.0 * outer.learning_rate / (1.0 - outer.momentum) * p.travel,
        compared=compared,
    )


def _listed(branch: Branch) -> Branch:
    """The branch up to the last certificate whose votes the branch itself lists.

    The plan after a certificate lists its votes, so the votes for the last of `n` are listed only
    on the longer branch. A single certificate counts with what the caller knows of it.
    """
    return branch.first(max(1, len(branch.steps) - 1))


def distance(p: Vector, q: Vector) -> float:
    """The L2 norm of Q - P, both of shape (parameters,) and float32.

    Each pass subtracts in float32 and sums squares in float64, element by element in order, so
    that every machine computes the same number.
    """
    total = 0.0
    for start in range(0, p.size, PASS_ELEMENTS):
        part = q[start : start + PASS_ELEMENTS] - p[start : start + PASS_ELEMENTS]
        squares = np.square(part, dtype=np.float64)
        # `cumsum` adds in order. The order of `sum` depends on the machine's vector width.
        total += float(np.cumsum(squares)[-1])
    return float(np.sqrt(total))


def merge_factor(share: MergeShare, apart: float) -> np.float32:
    """sigma c for two states that are `apart`; 0 where the distance is not finite."""
    if not np.isfinite(apart):
        return np.float32(0.0)
    c = min(1.0, share.limit / apart) if apart else 1.0
    return np.float32(share.sigma * c)


def merge_into(p: Vector, q: Vector, share: MergeShare, out: Vector) -> None:
    """Write P + sigma c (Q - P) into `out`, elementwise float32, one operation at a time.

    All vectors have shape (parameters,); `out` may be `p` or `q`. Where `q` is not finite, `out`
    is P.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        factor = merge_factor(share, distance(p, q))
    if not factor:
        np.copyto(out, p)
        return
    for start in range(0, p.size, PASS_ELEMENTS):
        ours = p[start : start + PASS_ELEMENTS]
        way = q[start : start + PASS_ELEMENTS] - ours
        np.multiply(way, factor, out=way)
        np.add(ours, way, out=out[start : start + PASS_ELEMENTS])


def merged_voters(
    p_voters: Iterable[PeerId], ancestor_voters: Iterable[PeerId], q_voters: Iterable[PeerId]
) -> tuple[PeerId, ...]:
    """The voters after a merge: those of P, then those of the ancestor that still vote in Q.

    Whoever Q alone appointed does not vote.
    """
    still = set(q_voters)
    return tuple(dict.fromkeys((*p_voters, *(peer for peer in ancestor_voters if peer in still))))


def exhausted_voters(
    q: Branch, ancestor_voters: frozenset[PeerId], recent: Sequence[frozenset[PeerId]]
) -> frozenset[PeerId]:
    """The voters on Q that stood on another minority branch which P merged a short while ago.

    The merge waits while there are any.

    Args:
        q: the minority branch.
        ancestor_voters: the voters of the common ancestor.
        recent: who stood on each minority branch that P merged in its last `MERGE_SPACING`
            certificates.
    """
    spent: set[PeerId] = set()
    for stood in recent:
        spent |= stood
    return standing(q, ancestor_voters) & spent
