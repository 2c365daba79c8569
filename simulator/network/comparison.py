"""Compares policies: rounds of one network, planned from its nodes' measurements and played."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np

from protocol.digest import digest
from protocol.errors import UserError
from protocol.network.coordinate import Coordinate
from protocol.network.network_snapshot import snapshot_of
from protocol.planning.chosen_groups import GroupChoice
from protocol.planning.group_choice import choose, fixed, group_size
from protocol.planning.group_proposals import GroupBounds
from protocol.planning.vector_sizes import VectorSizes
from simulator.network.links import VECTOR_BYTES, NetworkLinks, links_of
from simulator.network.measurements import CoordinateFit, NodeMeasurements
from simulator.network.transfer import TransferResult, transfer

ROUNDS = 12
LEAST_GROUP = 2
# The training time of a round in the manifest's default.
COMPUTING_S = 60.0
SIZES = VectorSizes(offer=VECTOR_BYTES, partial=VECTOR_BYTES, result=VECTOR_BYTES)
ADAPTIVE, FIXED = "adaptive", "fixed:"


class PlayedRound(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange as it was planned and as it went."""

    group_size: int
    groups: int
    predicted_s: float | None
    seconds: float
    between_bytes: float
    reason: str


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One policy on one network.

    `seconds_mean` counts the rounds in which the policy still adapted. `goodput` is the share of
    time that computes, with those rounds.
    """

    profile: str
    nodes: int
    policy: str
    seed: int
    group_size_median: float
    round_seconds_median: float
    predicted_seconds_median: float | None
    # The relative error, of the rounds with a prediction.
    prediction_error_median: float | None
    # The median of a round.
    inter_region_bytes: float
    goodput: float
    seconds_mean: float
    rounds: tuple[PlayedRound, ...]


class PathChange(msgspec.Struct, frozen=True, kw_only=True):
    """From round `at` on, every path of a share of the nodes takes `times` times as long."""

    at: int
    share: float
    times: float


def parse_policy(policy: str) -> int | None:
    """The group size that a policy fixes; None for `adaptive`.

    Raises:
        UserError: With code USAGE, for an unknown policy.
    """
    if policy == ADAPTIVE:
        return None
    if (
        policy.startswith(FIXED)
        and policy[len(FIXED) :].isdecimal()
        and int(policy[len(FIXED) :]) >= LEAST_GROUP
    ):
        return int(policy[len(FIXED) :])
    raise UserError(
        "USAGE",
        f"Unknown policy {policy!r}.",
        fix="use adaptive, or fixed:G with groups of G members, 2 or more",
        exit_code=2,
    )


@lru_cache(4)
def _network_rounds(
    profile: str, nodes: int, seed: int, rounds: int, change: PathChange | None
) -> list[tuple[NetworkLinks, list[Coordinate]]]:
    """For every round the links, and where the nodes estimate themselves to be at planning time.

    No policy changes either.
    """
    links, settling = links_of(profile, nodes, seed), CoordinateFit(nodes, seed)
    history: list[tuple[NetworkLinks, list[Coordinate]]] = []
    for number in range(rounds):
        estimated = settling.round(links)
        # The change comes while the exchange runs, before anybody has measured it.
        if change is not None and number == change.at:
            slow = np.random.default_rng([seed, nodes]).permutation(nodes) < change.share * nodes
            links = links.slowed(slow, change.times)
        history.append((links, estimated))
    return history


def run_policy(
    profile: str,
    nodes: int,
    policy: str,
    seed: int,
    rounds: int = ROUNDS,
    change: PathChange | None = None,
) -> PolicyRecord:
    """Play so many rounds under one policy."""
    size, measurements, played = (
        parse_policy(policy),
        NodeMeasurements(nodes, seed),
        _ExchangeCache(),
    )
    bounds, before = GroupBounds(least=LEAST_GROUP, most=nodes), None
    played_rounds: list[PlayedRound] = []
    for number, (links, estimated) in enumerate(
        _network_rounds(profile, nodes, seed, rounds, change)
    ):
        view = snapshot_of(
            measurements.readies(digest(b"round", number.to_bytes(8, "big")), estimated)
        )
        layout = (
            choose(view, bounds, SIZES, before)
            if size is None
            else fixed(view, size, bounds, SIZES)
        )
        went = played.transfer(layout, links)
        played_rounds.append(_round(layout, went))
        measurements.took_part(links, went, layout.groups, layout.shares)
        before = layout.after
    return _record(profile, nodes, policy, seed, played_rounds)


class _ExchangeCache:
    """The last exchange that was played: the same layout takes the same time."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], TransferResult] = {}

    def transfer(self, layout: GroupChoice, links: NetworkLinks) -> TransferResult:
        key = (layout.groups, layout.shares, id(links))
        if key not in self._known:
            # Only the last result is kept: a matrix of all pairs is large.
            self._known = {key: transfer(layout.groups, layout.shares, links)}
        return self._known[key]


def _round(layout: GroupChoice, went: TransferResult) -> PlayedRound:
    return PlayedRound(
        group_size=group_size(layout.groups),
        groups=len(layout.groups),
        predicted_s=layout.predicted_s,
        seconds=went.seconds,
        between_bytes=went.between_bytes,
        reason=layout.reason,
    )


def _record(
    profile: str, nodes: int, policy: str, seed: int, rounds: Sequence[PlayedRound]
) -> PolicyRecord:
    predicted = [(one.predicted_s, one.seconds) for one in rounds if one.predicted_s is not None]
    mean = statistics.fmean(one.seconds for one in rounds)
    return PolicyRecord(
        profile=profile,
        nodes=nodes,
        policy=policy,
        seed=seed,
        group_size_median=statistics.median(one.group_size for one in rounds),
        round_seconds_median=statistics.median(one.seconds for one in rounds),
        predicted_seconds_median=statistics.median(estimate for estimate, _ in predicted)
        if predicted
        else None,
        prediction_error_median=statistics.median(
            abs(estimate - real) / real for estimate, real in predicted
        )
        if predicted
        else None,
        inter_region_bytes=statistics.median(one.between_bytes for one in rounds),
        goodput=COMPUTING_S / (COMPUTING_S + mean),
        seconds_mean=mean,
        rounds=tuple(rounds),
    )


def fixed_sizes(nodes: int) -> list[int]:
    """The sizes that adaptive is compared with: powers of two, up to all nodes."""
    sizes = [LEAST_GROUP]
    while sizes[-1] * 2 < nodes:
        sizes.append(sizes[-1] * 2)
    return sizes if sizes[-1] == nodes else [*sizes, nodes]
