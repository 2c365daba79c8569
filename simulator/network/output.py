"""Plays and prints `hypergpud simulate network`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from simulator.network.bounds import bounds_of
from simulator.network.comparison import (
    ADAPTIVE,
    FIXED,
    PolicyRecord,
    fixed_sizes,
    parse_policy,
    run_policy,
)
from simulator.network.links import links_of
from simulator.network.plot import bars, plot_records

NODES = 64


def play(
    profile: str, nodes: int, policy: str | None, seed: int, say: Callable[[str], None]
) -> list[PolicyRecord]:
    """Play one policy, or adaptive and all fixed sizes.

    Raises:
        UserError: With code USAGE, for an unknown policy.
    """
    wanted = [policy] if policy else [ADAPTIVE, *(f"{FIXED}{size}" for size in fixed_sizes(nodes))]
    for name in wanted:
        parse_policy(name)
    records = []
    for name in wanted:
        records.append(run_policy(profile, nodes, name, seed))
        say(f"{name}: {records[-1].rounds[-1].reason}")
    return records


def render(records: list[PolicyRecord], as_json: bool, picture: Path | None) -> str:
    """The records as JSON, or as bars with the bounds of the link model.

    The records are also plotted to `picture`, where that is given.
    """
    if picture is not None:
        plot_records(records, picture)
    if as_json:
        return msgspec.json.encode([replace(record, rounds=()) for record in records]).decode()
    return "\n".join([bars(records), *_bounds_lines(records)])


def _bounds_lines(records: list[PolicyRecord]) -> list[str]:
    one = records[0]
    if one.profile != "regions" or one.nodes < 8:
        return []
    bounds = bounds_of(links_of(one.profile, one.nodes, one.seed))
    lower = (
        f"lower bounds under the link model: one flat group {bounds.flat_s:.2f} s, groups of "
        f"{bounds.group_size} {bounds.two_level_s:.2f} s:"
        f" a speed-up of {bounds.speed_up:.3f} is possible"
    )
    by_policy = {record.policy: record for record in records}
    flat, adaptive = by_policy.get(f"{FIXED}{one.nodes}"), by_policy.get(ADAPTIVE)
    if flat is None or adaptive is None:
        return [lower]
    reached = flat.round_seconds_median / adaptive.round_seconds_median
    far = adaptive.inter_region_bytes / flat.inter_region_bytes
    return [
        lower,
        f"adaptive against one flat group: {reached:.3f} times as fast, "
        f"{reached / bounds.speed_up:.0%} of what is possible,"
        f" with {far:.1%} of the bytes between regions",
    ]
