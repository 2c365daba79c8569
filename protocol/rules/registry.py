"""The functions of each version of the rules: everything that members must compute alike.

A member plans, divides, sums, steps and merges by the version that its run's manifest names,
whatever the newest version is. A function that a released version names never changes. To change a
rule, write the new function beside the old one, register it here under the next number, and let
`CURRENT_RULES` and `KNOWN_RULES` (`versions.py`) name that number. Data that carries its own proof
is not computed again: a certificate is checked by its signatures and hashes
(`protocol/certificates/certificate.py`). `tests/protocol/rules/test_pins.py` fails when a
registered version computes different bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from protocol.averaging.clip import ClipPart, ClipScale, Doubles
from protocol.averaging.inclusion import check_inclusion
from protocol.averaging.outer_step import outer_step, outer_step_4
from protocol.averaging.reduction import weighted_mean
from protocol.averaging.vector_layout import Vector, share_out
from protocol.certificates.leader_order import leader_order
from protocol.certificates.merge import merge_vectors
from protocol.codec import Codec
from protocol.contribution.round_share import rounds_in
from protocol.digest import Buffer, Digest
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.messages.offer import Ready
from protocol.messages.round import Inclusion
from protocol.network.network_snapshot import NetworkSnapshot
from protocol.planning.chosen_groups import GroupChoice
from protocol.planning.group_choice import choose, choose_2
from protocol.planning.group_proposals import GroupBounds
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.planning.round_length import next_round_s
from protocol.planning.vector_sizes import VectorSizes
from protocol.rules.versions import FIRST_RULES, RULES_2, RULES_4, refusal
from protocol.run.manifest import Manifest, Outer, RoundRules
from protocol.run.manifest_versions import RULES_3
from protocol.run.schedule import outer_at

if TYPE_CHECKING:
    from protocol.planning.plan import OpenPlan


class InclusionCheck(Protocol):
    """A check that an inclusion fits its plan. Raises `PeerFault("bad_plan")`."""

    def __call__(
        self, inclusion: Inclusion, plan: OpenPlan, manifest: Manifest, *, merging: bool = False
    ) -> None: ...


class OuterStep(Protocol):
    """See `protocol.averaging.outer_step.outer_step`. All vectors have shape (parameters,)."""

    def __call__(
        self,
        anchor: Vector,
        momentum: Vector,
        mean: Vector,
        rules: Outer,
        out_anchor: Vector,
        out_momentum: Vector,
        *,
        rounds: float = 1.0,
    ) -> None: ...


ClippedMean = Callable[[Sequence[ClipPart], ClipScale, Codec, Vector], Doubles]
"""See `protocol.codec.base.Codec.clipped_mean`."""


def clipped_mean(parts: Sequence[ClipPart], scale: ClipScale, codec: Codec, out: Vector) -> Doubles:
    """Compute the mean of clipped parts in their codec."""
    return codec.clipped_mean(parts, scale, out)


NextRound = Callable[[float | None, float | None, RoundRules], float]
"""See `protocol.planning.round_length.next_round_s`."""


class RuleSet(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the rules.

    Every function is pure and gives the same bytes on every machine.
    """

    version: int
    choose: Callable[
        [NetworkSnapshot, GroupBounds, VectorSizes, GroupSizeHistory | None], GroupChoice
    ]
    """The groups of a plan, the share of each position, and the history for the next plan."""
    next_round_s: NextRound | None
    """The length of the next round; None where all rounds of a run have one length."""
    share_out: Callable[[int, Sequence[float]], tuple[int, ...]]
    """The borders of slices, in chunks."""
    leader_order: Callable[[Digest, Iterable[PeerId]], tuple[PeerId, ...]]
    """The candidates in the order in which they lead the views after a certificate."""
    check_inclusion: InclusionCheck
    weighted_mean: Callable[[Iterable[tuple[int, Buffer]], Codec, Vector], int]
    """The mean of encoded contributions."""
    clipped_mean: ClippedMean
    """The mean of contributions whose chunks are bounded, since rules 4."""
    outer_at: Callable[[Manifest, int], Outer]
    """The outer rules of a round, by the samples certified before it."""
    outer_step: OuterStep
    """From an anchor and the mean to the next anchor."""
    rounds_in: Callable[[Iterable[Ready], Iterable[int]], float]
    """The rounds of training behind a mean, for the outer step, by the offers' weights."""
    merge_vectors: Callable[[Vector, Vector, tuple[int, int], Vector], None]
    """The merged state of two branches."""


_TWO = RuleSet(
    version=RULES_2,
    choose=choose_2,
    next_round_s=None,
    share_out=share_out,
    leader_order=leader_order,
    check_inclusion=check_inclusion,
    weighted_mean=weighted_mean,
    clipped_mean=clipped_mean,
    outer_at=outer_at,
    outer_step=outer_step,
    rounds_in=rounds_in,
    merge_vectors=merge_vectors,
)

_THREE = msgspec.structs.replace(_TWO, version=RULES_3, choose=choose, next_round_s=next_round_s)

RULE_SETS: dict[int, RuleSet] = {
    # The first version remains only for reading its certificates: no node plans by version 1.
    FIRST_RULES: msgspec.structs.replace(_TWO, version=FIRST_RULES),
    RULES_2: _TWO,
    RULES_3: _THREE,
    RULES_4: msgspec.structs.replace(_THREE, version=RULES_4, outer_step=outer_step_4),
}
"""The rule sets by version."""


def rule_set(version: int) -> RuleSet:
    """The functions of one version.

    Raises `UserError("RULES")` for one that this program does not have.
    """
    found = RULE_SETS.get(version)
    if found is None:
        raise UserError(
            "RULES", refusal(version, RULE_SETS), fix="install a newer hypergpu", exit_code=2
        )
    return found


def rules_of(manifest: Manifest) -> RuleSet:
    """The functions by which the members of a run work. Raises `UserError("RULES")`."""
    return rule_set(manifest.rules)
