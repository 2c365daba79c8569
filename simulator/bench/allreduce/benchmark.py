"""All cells of a benchmark in turn, round by round, so that what else the machine does falls on all
of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

import msgspec

from protocol.codec import codec_named, entries
from protocol.errors import Unreachable, UserError
from simulator.bench.allreduce import retry
from simulator.bench.allreduce.cell import Cell, CellRound
from simulator.bench.allreduce.vectors import tolerance
from simulator.harness.clusters import ClusterLink, Clusters, clusters
from simulator.harness.netns import Namespaces, missing_for_netem, namespaces

ENGINES = ("native", "hivemind", "gloo")
CODECS_OF = {
    # The cells compare means that travel in the same codec.
    "native": tuple(entry.name for entry in entries() if entry.is_dense),
    "hivemind": ("float32", "float16", "int8"),
    "gloo": ("float32",),
}
"""Which codecs an engine has. hivemind's 8 bits are its uniform quantization; its blockwise one wants a library of GPUs."""

# Rounds of each cell that are not counted: connections are made in them.
WARM_UP = 1
LOOPBACK = "127.0.0.1"

Say = Callable[[str], None]


class PeerHosts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the peers are."""

    hosts: tuple[str, ...]
    device: str
    prefixes: tuple[tuple[str, ...], ...]


class CellRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One engine with one codec.

    A gigabyte is 10^9 bytes of float32 vector, every peer's counted; rates are of the vector, not
    of its encoding.

    `bound_seconds` is 2(n-1)/n x encoded bytes / rate; `share_of_tcp` compares with bare TCP that
    moves the same bytes both ways on the same links, round by round. `certified_seconds_median` is
    a whole certified round in memory: digests, plan, cut, votes, outer step, ledger. `speedup_over`
    names other cells and how many times as long they took, the median over neighbouring rounds.
    `wrong` counts rounds whose result was not the mean, or in which the engine itself says that a
    peer was left out: they are no figures.
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


UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def parse_rate(text: str) -> float | None:
    """Bits a second; None for "none". Raises `UserError("RATE")`."""
    if text == "none":
        return None
    number, unit = text[:-4], text[-4:].lower()
    try:
        bits = float(number) * UNITS[unit]
    except (KeyError, ValueError):
        bits = 0.0
    if not 0 < bits < 1e12:
        raise UserError(
            "RATE",
            f"{text!r} is no rate.",
            why="a number with kbit, mbit or gbit behind it, or none",
            exit_code=2,
        )
    return bits


@contextmanager
def peer_hosts(peers: int, rate_bps: float | None, rtt_s: float, say: Say) -> Iterator[PeerHosts]:
    """Loopback, or with a rate or a round trip a namespace for each peer.

    Raises `UserError("NETNS")`.
    """
    if rate_bps is None and not rtt_s:
        yield PeerHosts(hosts=(LOOPBACK,) * peers, device="lo", prefixes=((),) * peers)
        return
    with ExitStack() as stack:
        made: Namespaces | Clusters
        if rtt_s and (why := missing_for_netem()):
            say(
                f"{why}: every packet is held by a process beside the peers, which costs "
                "CPU of theirs"
            )
            made = stack.enter_context(
                clusters(
                    peers,
                    1,
                    ClusterLink(delay_s=rtt_s / 2),
                    uplink_bps=rate_bps,
                    downlink_bps=rate_bps,
                )
            )
        else:
            made = stack.enter_context(namespaces(peers))
            for peer in range(peers):
                made.shape(peer, uplink_bps=rate_bps, downlink_bps=rate_bps)
                if rtt_s:
                    made.delay(peer, rtt_s / 4)  # both ways at both ends
        hosts, prefixes = (
            tuple(of(peer) for peer in range(peers)) for of in (made.host, made.prefix)
        )
        yield PeerHosts(hosts=hosts, device="eth0", prefixes=prefixes)


def measure(
    *,
    peers: int,
    elements: int,
    codecs: Sequence[str],
    engines: Sequence[str],
    rate_bps: float | None,
    rtt_s: float,
    repeat: int,
    certified: bool,
    say: Say,
) -> list[CellRecord]:
    """The whole benchmark. Raises `UserError` for an engine or codec that is not there."""
    for engine in engines:
        if engine not in ENGINES:
            raise UserError(
                "ENGINE",
                f"There is no engine {engine!r}.",
                why=f"this version has: {', '.join(ENGINES)}",
                exit_code=2,
            )
    for codec in codecs:
        if codec not in CODECS_OF["native"]:
            raise UserError(
                "CODEC",
                f"{codec!r} is not measured here.",
                why=f"these are: {', '.join(CODECS_OF['native'])}",
                exit_code=2,
            )
    wanted = [
        (engine, codec) for codec in codecs for engine in engines if codec in CODECS_OF[engine]
    ]
    with peer_hosts(peers, rate_bps, rtt_s, say) as where:
        tcp = [("tcp", codec) for codec in codecs] if rate_bps is not None else []
        rounds = _interleaved(peers, elements, [*wanted, *tcp], where, repeat, say)
        proved: dict[str, tuple[list[CellRound], list[CellRound]]] = {}
        for codec in codecs if certified and "native" in engines else ():
            both = _interleaved(
                peers, elements, [("native", codec), ("certified", codec)], where, repeat, say
            )
            proved[codec] = both["native", codec], both["certified", codec]
    return [
        _record(engine, codec, peers, elements, rate_bps, rounds, proved)
        for engine, codec in wanted
    ]


def _interleaved(
    peers: int,
    elements: int,
    wanted: Sequence[tuple[str, str]],
    where: PeerHosts,
    repeat: int,
    say: Say,
) -> dict[tuple[str, str], list[CellRound]]:
    rounds: dict[tuple[str, str], list[CellRound]] = {one: [] for one in wanted}
    with ExitStack() as stack:
        cells: dict[tuple[str, str], Cell] = {}
        unmet: dict[tuple[str, str], str] = {}
        for engine, codec in wanted:
            say(f"starting {peers} peers of {engine} with {codec}")
            cell = Cell(engine, codec, peers, elements, where.hosts, where.device, where.prefixes)
            stack.callback(cell.close)
            cells[engine, codec] = cell
            unmet[engine, codec] = _start(cell, say)
        for number in range(-WARM_UP, repeat):
            for one, cell in list(cells.items()):
                made = _failed(unmet[one]) if unmet[one] else _play(cell, say)
                if not made.grouped:
                    cell.close()
                    del cells[one]
                # The last round of a cell that is given up.
                if number >= 0 or not made.grouped:
                    rounds[one].append(made)
                    said = made.failure or (
                        f"{made.seconds:.3f} s, {made.cpu_seconds:.2f} s of CPU, error "
                        f"{made.max_error:.1e}"
                    )
                    say(f"round {number + 1}: {one[0]} {one[1]}: {said}")
    return rounds


def _start(cell: Cell, say: Say) -> str:
    """Why the cell's peers could not be started, or nothing."""
    try:
        retry.start(cell, say)
    except Unreachable as error:
        say(str(error))
        return str(error).splitlines()[0]
    return ""


def _play(cell: Cell, say: Say) -> CellRound:
    try:
        return retry.play(cell, say)
    except Unreachable as error:
        say(str(error))
        return _failed(str(error).splitlines()[0])


def _failed(why: str) -> CellRound:
    """The round of a cell whose peers are gone."""
    return CellRound(
        seconds=0.0, cpu_seconds=0.0, max_error=0.0, agree=False, failure=why, grouped=False
    )


def without_figure(records: Sequence[CellRecord]) -> list[str]:
    """One sentence for each engine and codec that has no right round, so that ratios lack it."""
    return [
        f"No figure for {record.engine} {record.codec}, and no ratio to it: "
        + ("; ".join(record.notes) or "no round was played")
        for record in records
        if record.rounds == record.wrong
    ]


def is_right(made: CellRound, codec: str) -> bool:
    """Whether a round may be a figure."""
    return not made.failure and made.max_error <= tolerance(codec)  # a NaN is not


def _record(
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
        f"a result off the exact mean by {made.max_error:.2e}, {tolerance(codec):.2e} are allowed"
    )


def _ratio(
    slower: Sequence[CellRound], slower_codec: str, faster: Sequence[CellRound], faster_codec: str
) -> float | None:
    """How many times as long `slower` took, the median over rounds that stood side by side."""
    pairs = [
        one.seconds / other.seconds
        for one, other in zip(slower, faster, strict=False)
        if is_right(one, slower_codec) and is_right(other, faster_codec)
    ]
    return round(median(pairs), 3) if pairs else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
