"""Runs all cells of a benchmark in turn, round by round, so that other load affects all alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from protocol.codec import entries
from protocol.errors import Unreachable, UserError
from simulator.bench.allreduce import retry
from simulator.bench.allreduce.cell import Cell, CellRound
from simulator.bench.allreduce.cell_record import CellRecord, cell_record
from simulator.bench.allreduce.peer_hosts import PeerHosts, peer_hosts

ENGINES = ("native", "hivemind", "gloo")
CODECS_OF = {
    # The cells compare means that travel in the same codec.
    "native": tuple(entry.name for entry in entries() if entry.is_dense),
    "hivemind": ("float32", "float16", "int8"),
    "gloo": ("float32",),
}
"""The codecs of each engine.

hivemind's int8 is its uniform quantization. Its blockwise one needs a GPU library.
"""

# Rounds of each cell that do not count: connections are made in them.
WARM_UP = 1

Say = Callable[[str], None]


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
    downlink_bps: float | None = None,
) -> list[CellRecord]:
    """Run the whole benchmark.

    `rate_bps` is what each peer's link sends; `downlink_bps` is what it receives, by default as
    much.

    Raises:
        UserError: For an unknown engine or codec.
    """
    for engine in engines:
        if engine not in ENGINES:
            raise UserError(
                "ENGINE",
                f"Unknown engine {engine!r}.",
                why=f"known engines: {', '.join(ENGINES)}",
                exit_code=2,
            )
    for codec in codecs:
        if codec not in CODECS_OF["native"]:
            raise UserError(
                "CODEC",
                f"Cannot measure the codec {codec!r}.",
                why=f"known codecs: {', '.join(CODECS_OF['native'])}",
                exit_code=2,
            )
    wanted = [
        (engine, codec) for codec in codecs for engine in engines if codec in CODECS_OF[engine]
    ]
    rates = (rate_bps, rate_bps if downlink_bps is None else downlink_bps)
    slower_bps = min((rate for rate in rates if rate is not None), default=None)
    with peer_hosts(peers, rate_bps, rtt_s, say, downlink_bps=downlink_bps) as where:
        tcp = [("tcp", codec) for codec in codecs] if slower_bps is not None else []
        rounds = _interleaved(peers, elements, [*wanted, *tcp], where, repeat, say)
        proved: dict[str, tuple[list[CellRound], list[CellRound]]] = {}
        for codec in codecs if certified and "native" in engines else ():
            both = _interleaved(
                peers, elements, [("native", codec), ("certified", codec)], where, repeat, say
            )
            proved[codec] = both["native", codec], both["certified", codec]
    return [
        cell_record(engine, codec, peers, elements, slower_bps, rounds, proved)
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
                played = _failed(unmet[one]) if unmet[one] else _play(cell, say)
                if not played.grouped:
                    cell.close()
                    del cells[one]
                # The last round of a cell that is given up counts as well.
                if number >= 0 or not played.grouped:
                    rounds[one].append(played)
                    said = played.failure or (
                        f"{played.seconds:.3f} s, {played.cpu_seconds:.2f} s of CPU, error "
                        f"{played.max_error:.1e}"
                    )
                    say(f"round {number + 1}: {one[0]} {one[1]}: {said}")
    return rounds


def _start(cell: Cell, say: Say) -> str:
    """Start a cell's peers. Returns why that failed; empty on success."""
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
