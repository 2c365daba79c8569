"""Decides when hivemind's rounds end, how large their groups are, and what follows a round.

Every decision carries its reason.
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
"""hivemind's codecs by the names of HyperGPU's codecs.

Its 8-bit codecs are left out: under load, "uniform8" lost 3 of 4 parts and reported success.
"""

# An all-reduce goes on without a member that is silent for this long. The native engine notices a
# crash in the same time.
CHUNK_S = 5.0
# Matchmaking alone takes a second or two on one machine.
SHORTEST_ROUND_S = 4.0
# Relative to the largest value of a sketch. Rounding makes members differ by about 1e-7 a round; a
# missed round makes them differ by about 1e-1.
MAX_ANCHOR_DIFFERENCE = 1e-3
# As a fraction of a round. A shorter rest of a round is too short to learn anything in.
MIN_REST = 0.05
# A lane has 2**LANE_BITS positions for one round: more than a node trains between two averages.
LANE_BITS = 32


def check_manifest(manifest: Manifest) -> None:
    """Raise `UserError("MANIFEST")` for a run that hivemind's rounds cannot do."""

    def refuse(what: str, fix: str) -> UserError:
        return UserError("MANIFEST", f'With engine = "hivemind", {what}.', fix=fix, exit_code=2)

    if manifest.codec not in CODECS:
        raise refuse(
            f"the codec {manifest.codec!r} does not exist", f"codec = one of: {', '.join(CODECS)}"
        )
    if manifest.round.steps:
        raise refuse(
            "rounds cannot be counted in steps: members meet by the clock", "leave round.steps at 0"
        )
    if manifest.inner.warmup_samples or manifest.inner.decay != "constant":
        raise refuse(
            "no learning rate follows a schedule: schedules go by certified samples, and hivemind "
            "certifies none",
            'leave inner.warmup_samples at 0 and inner.decay at "constant"',
        )
    if manifest.outer.momentum_warmup_samples:
        raise refuse(
            "the outer momentum has no warm-up: it goes by certified samples, and hivemind "
            "certifies none",
            "leave outer.momentum_warmup_samples at 0",
        )
    if manifest.round.seconds < SHORTEST_ROUND_S:
        raise refuse(
            f"rounds have at least {SHORTEST_ROUND_S:g} s: finding a group takes a second or two",
            "raise round.seconds",
        )


def averager_settings(run: Digest, manifest: Manifest) -> AveragerSettings:
    """Derive hivemind's settings from the manifest.

    The all-reduce gets the time of scatter and gather. Matchmaking gets a quarter of the round, and
    5 s at most.
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
    """Return how long to look for a group: two attempts at matchmaking, and a second for calls."""
    return 2 * settings.matchmaking_s + 1.0


def next_end(now_s: float, round_s: float) -> float:
    """Return when the round ends, in unix seconds: at the next multiple of its length.

    Members that have never exchanged a message thus end their rounds together. A rest below
    `MIN_REST` of a round joins the next round. With a larger limit, a member that found no group
    would skip a round that the others do not skip, and would never find them again. hivemind uses
    wall clocks too: members whose clocks differ by more than the matchmaking time never meet.
    """
    end = math.ceil(now_s / round_s) * round_s
    return end if end - now_s >= MIN_REST * round_s else end + round_s


class TargetGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The size of the group to look for, and the reason for it."""

    size: int
    reason: str


def choose_group(members: int, max_group: int) -> TargetGroup:
    """Choose hivemind's `target_group_size` for `members` live members, this one included.

    The size makes one group where `max_group` allows it, else the fewest groups of equal size.
    """
    if members <= max_group:
        return TargetGroup(
            size=members,
            reason=f"looking for all {members} live members in one hivemind group",
        )
    groups = math.ceil(members / max_group)
    size = math.ceil(members / groups)
    return TargetGroup(
        size=size,
        reason=f"{members} live members make {groups} groups of at most {max_group}; looking for a"
        f" group of {size}",
    )


def lane_of(number: int, me: PeerId, members: Sequence[PeerId]) -> Lane:
    """Return which samples `me` draws after round `number`.

    `members` are all live members. Two nodes that see different members may draw the same samples.
    """
    everyone = sorted({me, *members})
    return Lane(base=number << LANE_BITS, index=everyone.index(me), stride=len(everyone))


def sketch_of(anchor: Vector) -> tuple[float, ...]:
    """Return `SKETCH` evenly spaced values of the anchor."""
    places = np.linspace(0, anchor.size - 1, num=min(SKETCH, anchor.size)).astype(np.int64)
    return tuple(float(value) for value in anchor[places])


def _near(one: MemberInfo, other: MemberInfo) -> bool:
    if one.number != other.number or len(one.sketch) != len(other.sketch):
        return False
    if not one.sketch:
        return True
    first, second = np.array(one.sketch), np.array(other.sketch)
    return bool(
        np.abs(first - second).max() <= MAX_ANCHOR_DIFFERENCE * max(np.abs(first).max(), 1e-30)
    )


class RoundDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do after a round, and why.

    "apply" applies the mean, "keep" keeps the work for the next round, and "others" downloads the
    state of the majority.
    """

    action: Literal["apply", "keep", "others"]
    reason: str


def decide_round(averaged: VectorAveraged, mine: MemberInfo) -> RoundDecision:
    """Decide what to do after a round that hivemind reports as a success.

    A mean with missing values is not applied. All members that see the same hole thus keep their
    work and stay together. A hole that only other members see, such as a sender that another
    reducer left out, shows in the next round as different anchors.
    """
    if not averaged.whole:
        holes = []
        if averaged.local_elements:
            own = averaged.local_elements / averaged.elements
            holes.append(f"{100 * own:.0f}% of the values are this node's own")
        if averaged.missing_senders:
            holes.append(
                f"{averaged.missing_senders} of {averaged.group} members are missing from the sum"
                " that this node made"
            )
        elif averaged.parts_summed != averaged.parts_expected:
            missing = averaged.parts_expected - averaged.parts_summed
            holes.append(
                f"{missing} of {averaged.parts_expected} pieces are missing from the sum that this"
                " node made"
            )
        return RoundDecision(
            action="keep", reason=f"hivemind reported success, but {' and '.join(holes)}"
        )
    clusters = [
        tuple(other for other in averaged.members if _near(one, other)) for one in averaged.members
    ]
    largest = max(
        clusters,
        key=lambda cluster: (
            len(cluster),
            max(member.number for member in cluster),
            min(member.peer for member in cluster),
        ),
        default=(),
    )
    if largest and mine not in largest:
        return RoundDecision(
            action="others",
            reason=f"{len(largest)} of {averaged.group} members hold another anchor, of round"
            f" {largest[0].number}",
        )
    silent = averaged.group - len(averaged.members)
    besides = averaged.group - len(largest)
    words = [
        f"{averaged.group} members averaged in {averaged.all_reduce_s:.2f} s, after"
        f" {averaged.matchmaking_s:.1f} s of matchmaking"
    ]
    if silent:
        words.append(f"{silent} of them do not run HyperGPU")
    elif besides:
        words.append(f"{besides} of them hold another anchor")
    return RoundDecision(
        action="apply",
        reason="; ".join(words) + "; not certified: nothing proves that all members hold one mean",
    )
