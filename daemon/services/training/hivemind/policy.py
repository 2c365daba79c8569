"""What HyperGPU decides about hivemind's rounds, purely: whether a run can be done so, when a round
ends, with how many, what it is worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from daemon.services.training.hivemind.messages import SKETCH, MemberInfo, VectorAveraged
from daemon.services.training.hivemind.settings import AveragerSettings
from protocol.averaging.vector_layout import Vector
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.ports.trainer import Lane
from protocol.run.manifest import Manifest

CODECS = {"float32": "none", "float16": "float16"}
"""What hivemind has of ours. Its 8-bit codecs are not offered: under load "uniform8" lost three quarters of its parts and called it a success."""

# A member silent for so long in an all-reduce is given up, as a crash is noticed within 5 s by the
# native engine.
CHUNK_S = 5.0
# Matchmaking alone takes a second or two on one machine.
SHORTEST_ROUND_S = 4.0
# Of the largest value in a sketch: rounding moves members some 1e-7 apart in a round, a missed
# round a hundred times APART.
APART = 1e-3
# Of a round: too short to learn anything in.
LEAST = 0.05
# Of a lane's positions for one round: more samples than anybody trains between two averages.
LANE_BITS = 32


def check_manifest(manifest: Manifest) -> None:
    """Raises `UserError("MANIFEST")` for what hivemind's rounds cannot do."""

    def refuse(what: str, fix: str) -> UserError:
        return UserError("MANIFEST", f'With engine = "hivemind", {what}.', fix=fix, exit_code=2)

    if manifest.codec not in CODECS:
        raise refuse(
            f"the codec {manifest.codec!r} is not there", f"codec = one of: {', '.join(CODECS)}"
        )
    if manifest.round.steps:
        raise refuse(
            "rounds cannot be counted in steps: members meet by the clock", "leave round.steps at 0"
        )
    if manifest.round.seconds < SHORTEST_ROUND_S:
        raise refuse(
            f"rounds have at least {SHORTEST_ROUND_S:g} s: finding a group takes a second or two",
            "raise round.seconds",
        )


def averager_settings(run: Digest, manifest: Manifest) -> AveragerSettings:
    """hivemind's timeouts from the manifest's: the whole all-reduce has what scatter and gather
    have, matchmaking a quarter of the round.
    """
    matchmaking_s = min(5.0, manifest.round.seconds / 4)
    return AveragerSettings(
        prefix=f"hypergpu-{run.hex()[:32]}",
        compression=CODECS[manifest.codec],
        group_size=manifest.group.max_group,
        min_group_size=manifest.group.min_peers,
        matchmaking_s=matchmaking_s,
        request_s=0.6 * matchmaking_s,
        chunk_s=CHUNK_S,
        all_reduce_s=manifest.round.scatter_s + manifest.round.gather_s,
    )


def find_s(settings: AveragerSettings) -> float:
    """How long to look for a group: two attempts of hivemind's matchmaking, and a second for the
    way there.
    """
    return 2 * settings.matchmaking_s + 1.0


def next_end(now_s: float, round_s: float) -> float:
    """When the round ends, unix seconds: at the next multiple of its length, so that members that
    never spoke meet.

    A rest below `LEAST` of a round goes to the next one. Not more: whoever failed to find a group
    would skip a round that the others do not skip, and never meet them again. hivemind itself goes
    by wall clocks, and members whose clocks differ by more than its matchmaking never meet either.
    """
    end = math.ceil(now_s / round_s) * round_s
    return end if end - now_s >= LEAST * round_s else end + round_s


class TargetGroup(msgspec.Struct, frozen=True, kw_only=True):
    size: int
    reason: str


def choose_group(members: int, max_group: int) -> TargetGroup:
    """hivemind's `target_group_size` for so many live members, ourselves included: one group, else
    as few as `max_group` allows, alike in size.
    """
    if members <= max_group:
        return TargetGroup(
            size=members,
            reason=f"looking for all {members} live members in one group of hivemind's",
        )
    groups = math.ceil(members / max_group)
    size = math.ceil(members / groups)
    return TargetGroup(
        size=size,
        reason=f"{members} live members are {groups} groups of at most {max_group}: looking for {size}",
    )


def lane_of(number: int, me: PeerId, members: Sequence[PeerId]) -> Lane:
    """Which samples `me` draws after round `number`; `members` are all live ones.

    Two nodes that know different members may draw the same samples.
    """
    everybody = sorted({me, *members})
    return Lane(base=number << LANE_BITS, index=everybody.index(me), stride=len(everybody))


def sketch_of(anchor: Vector) -> tuple[float, ...]:
    """Evenly spaced values."""
    places = np.linspace(0, anchor.size - 1, num=min(SKETCH, anchor.size)).astype(np.int64)
    return tuple(float(value) for value in anchor[places])


def _near(one: MemberInfo, other: MemberInfo) -> bool:
    if one.number != other.number or len(one.sketch) != len(other.sketch):
        return False
    if not one.sketch:
        return True
    first, second = np.array(one.sketch), np.array(other.sketch)
    return bool(np.abs(first - second).max() <= APART * max(np.abs(first).max(), 1e-30))


class RoundDecision(msgspec.Struct, frozen=True, kw_only=True):
    """ "apply" the mean, "keep" what was learned for the next round, or go and get the state that
    most "others" have.
    """

    what: Literal["apply", "keep", "others"]
    reason: str


def decide_round(averaged: VectorAveraged, mine: MemberInfo) -> RoundDecision:
    """What a round that hivemind calls a success is worth.

    A mean in which something is missing is not applied: every member that sees a hole keeps its
    work, so that those who see one stay together. Holes that only others see (a sender that another
    reducer left out) show in the next round, as anchors that differ.
    """
    if not averaged.whole:
        holes = []
        if averaged.local_elements:
            holes.append(
                f"{100 * averaged.local_elements / averaged.elements:.0f}% of the values are this node's own"
            )
        if averaged.missing_senders:
            holes.append(
                f"{averaged.missing_senders} of {averaged.group} members are missing in the part summed here"
            )
        elif averaged.parts_summed != averaged.parts_expected:
            holes.append(
                f"{averaged.parts_expected - averaged.parts_summed} of {averaged.parts_expected} pieces are missing in the part summed here"
            )
        return RoundDecision(
            what="keep", reason=f"hivemind reported success, but {' and '.join(holes)}"
        )
    camps = [tuple(other for other in averaged.said if _near(one, other)) for one in averaged.said]
    largest = max(
        camps,
        key=lambda camp: (
            len(camp),
            max(said.number for said in camp),
            min(said.peer for said in camp),
        ),
        default=(),
    )
    if largest and mine not in largest:
        return RoundDecision(
            what="others",
            reason=f"{len(largest)} of {averaged.group} members stand at round {largest[0].number} with another anchor",
        )
    silent = averaged.group - len(averaged.said)
    besides = averaged.group - len(largest)
    words = [
        f"{averaged.group} members averaged in {averaged.all_reduce_s:.2f} s, found in {averaged.matchmaking_s:.1f} s"
    ]
    if silent:
        words.append(f"{silent} of them no HyperGPU")
    elif besides:
        words.append(f"{besides} of them from another anchor")
    return RoundDecision(
        what="apply",
        reason="; ".join(words) + "; not certified: nothing proves that the others hold the same",
    )
