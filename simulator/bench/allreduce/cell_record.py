"""The record of one engine with one codec, computed from its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from protocol.codec import codec_named
from simulator.bench.allreduce.cell import CellRound
from simulator.bench.allreduce.vectors import tolerance


class CellRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One engine with one codec.

    A gigabyte is 10^9 bytes of float32 vector, summed over all peers. Rates refer to the vector,
    not to its encoding.

    `rate_bps` is the slower way of each peer's link: every member sends as much as it receives.
    `bound_seconds` is 2(n-1)/n x encoded bytes / rate. `share_of_tcp` compares with plain TCP that
    moves the same bytes both ways on the same links, round by round. `certified_seconds_median` is
    a whole certified round in memory: digests, plan, inclusion, votes, outer step, ledger.
    `speedup_over` names other cells and how many times as long they took, the median over
    neighbouring rounds. `wrong` counts the rounds that are no figures: their result was not the
    mean, or the engine itself reports that a peer was left out.
    """

    engine: str
    codec: str
    peers: int
    elements: int
    rate_bps: float | None
    seconds_median: float | None
    seconds_min: float | None
    seconds_max: float | None
    mb_per_s_per_peer: float | None
    cpu_seconds_per_gb: float | None
    bound_seconds: float | None
    share_of_bound: float | None
    share_of_tcp: float | None
    certified_seconds_median: float | None
    certified_ratio: float | None
    max_error: float | None
    rounds: int
    wrong: int
    agree: bool
    speedup_over: dict[str, float] = {}
    notes: tuple[str, ...] = ()


def without_figure(records: Sequence[CellRecord]) -> list[str]:
    """One sentence for each engine and codec without a right round, whose ratios are missing."""
    return [
        f"No figure for {record.engine} {record.codec}, and no ratio to it: "
        + ("; ".join(record.notes) or "no round was played")
        for record in records
        if record.rounds == record.wrong
    ]


def is_right(made: CellRound, codec: str) -> bool:
    """Whether a round may be a figure."""
    return not made.failure and made.max_error <= tolerance(codec)  # False for a NaN


def cell_record(
    engine: str,
    codec: str,
    peers: int,
    elements: int,
    rate_bps: float | None,
    rounds: dict[tuple[str, str], list[CellRound]],
    proved: dict[str, tuple[list[CellRound], list[CellRound]]],
) -> CellRecord:
    tried = rounds[engine, codec]
    right = [made for made in tried if is_right(made, codec)]
    seconds = [made.seconds for made in right]
    middle = median(seconds) if seconds else None
    bound = (
        2 * (peers - 1) / peers * codec_named(codec).size(elements) * 8 / rate_bps
        if rate_bps
        else None
    )
    alone, whole = proved.get(codec, ([], [])) if engine == "native" else ([], [])
    certified = [made.seconds for made in whole if is_right(made, codec)]
    speedups = {
        f"{other[0]} {other[1]}": ratio
        for other in rounds
        if other[0] not in {engine, "tcp"}
        and (ratio := _ratio(rounds[other], other[1], tried, codec)) is not None
    }
    return CellRecord(
        engine=engine,
        codec=codec,
        peers=peers,
        elements=elements,
        rate_bps=rate_bps,
        seconds_median=_rounded(middle),
        seconds_min=_rounded(min(seconds, default=None)),
        seconds_max=_rounded(max(seconds, default=None)),
        mb_per_s_per_peer=_rounded(4e-6 * elements / middle if middle else None),
        cpu_seconds_per_gb=_rounded(
            median(made.cpu_seconds for made in right) / (4e-9 * elements * peers)
            if right
            else None
        ),
        bound_seconds=_rounded(bound),
        share_of_bound=_rounded(bound / middle if bound and middle else None),
        share_of_tcp=_rounded(
            _ratio(rounds[("tcp", codec)], codec, tried, codec)
            if ("tcp", codec) in rounds
            else None
        ),
        certified_seconds_median=_rounded(median(certified) if certified else None),
        certified_ratio=_rounded(_ratio(whole, codec, alone, codec)),
        max_error=max((made.max_error for made in right), default=None),
        rounds=len(tried),
        wrong=len(tried) - len(right),
        agree=bool(right) and all(made.agree for made in right),
        speedup_over=speedups,
        notes=tuple(
            dict.fromkeys(
                _fault(made, codec) for made in (*tried, *whole) if not is_right(made, codec)
            )
        ),
    )


def _fault(made: CellRound, codec: str) -> str:
    return made.failure or (
        f"a result is off the exact mean by {made.max_error:.2e}; {tolerance(codec):.2e} "
        "are allowed"
    )


def _ratio(
    slower: Sequence[CellRound], slower_codec: str, faster: Sequence[CellRound], faster_codec: str
) -> float | None:
    """How many times as long `slower` took: the median over neighbouring rounds."""
    pairs = [
        one.seconds / other.seconds
        for one, other in zip(slower, faster, strict=False)
        if is_right(one, slower_codec) and is_right(other, faster_codec)
    ]
    return round(median(pairs), 3) if pairs else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
