"""What `simulate network` plays and prints."""

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
from simulator.network.plot import lines, svg

NODES = 64


def play(
    profile: str, nodes: int, policy: str | None, seed: int, say: Callable[[str], None]
) -> list[PolicyRecord]:
    """The records of one policy, or of adaptive and all fixed sizes.

    Raises `UserError("USAGE")` for a policy that is none.
    """
    wanted = [policy] if policy else [ADAPTIVE, *(f"{FIXED}{size}" for size in fixed_sizes(nodes))]
    for name in wanted:
        parse_policy(name)
    records = []
    for name in wanted:
        records.append(run_policy(profile, nodes, name, seed))
        say(f"{name}: {records[-1].rounds[-1].reason}")
    return records


def told(records: list[PolicyRecord], as_json: bool, picture: Path | None) -> str:
    """The records as JSON or as a drawing, with what the link model allows."""
    if picture is not None:
        picture.write_text(svg(records), encoding="utf-8")
    if as_json:
        return msgspec.json.encode([replace(record, rounds=()) for record in records]).decode()
    return "\n".join([lines(records), *_allowed(records)])


def _allowed(records: list[PolicyRecord]) -> list[str]:
    one = records[0]
    if one.profile != "regions" or one.nodes < 8:
        return []
    bounds = bounds_of(links_of(one.profile, one.nodes, one.seed))
    said = (
        f"lower bounds under the link model: one flat group {bounds.flat_s:.2f} s, rows of {bounds.row} {bounds.two_level_s:.2f} s:"
        f" a speed-up of {bounds.speed_up:.3f} is possible"
    )
    by_policy = {record.policy: record for record in records}
    flat, adaptive = by_policy.get(f"{FIXED}{one.nodes}"), by_policy.get(ADAPTIVE)
    if flat is None or adaptive is None:
        return [said]
    reached = flat.round_seconds_median / adaptive.round_seconds_median
    far = adaptive.inter_region_bytes / flat.inter_region_bytes
    return [
        said,
        f"adaptive against one flat group: {reached:.3f} times as fast, {reached / bounds.speed_up:.0%} of what is possible,"
        f" with {far:.1%} of the bytes between regions",
    ]
