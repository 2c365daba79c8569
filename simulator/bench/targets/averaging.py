"""Ten processes on loopback average one vector by whole certified rounds."""

from __future__ import annotations

from statistics import median

from protocol.errors import Unreachable
from simulator.bench.allreduce import retry
from simulator.bench.allreduce.benchmark import Say
from simulator.bench.allreduce.cell import Cell
from simulator.bench.allreduce.cell_record import is_right
from simulator.bench.allreduce.peer_hosts import LOOPBACK
from simulator.bench.targets.target_row import Target, TargetRow, measured, unmeasured

PEERS = 10
# The bundled run has 0.4 million parameters.
ELEMENTS = 400_000
ROUNDS = 5
# Measured: ten peers that have just met use 3.3 s of processor time in their first round and 1.0 s
# from the fourth on. They connect to each other meanwhile.
WARM_UP_ROUNDS = 4
AGGREGATION = Target(name="aggregation, 10 nodes", wanted="below", limit=1.0, unit="s")


def measure_averaging(codec: str, say: Say, *, peers: int = PEERS) -> TargetRow:
    """Time certified rounds of `peers` processes. The median of the right rounds counts."""
    cell = Cell("certified", codec, peers, ELEMENTS, (LOOPBACK,) * peers, "lo", ((),) * peers)
    say(f"starting {peers} processes that average {ELEMENTS:,} elements as {codec}")
    try:
        retry.start(cell, say)
        played = [retry.play(cell, say) for _ in range(WARM_UP_ROUNDS + ROUNDS)][WARM_UP_ROUNDS:]
    except Unreachable as error:
        return unmeasured(AGGREGATION, str(error).splitlines()[0])
    finally:
        cell.close()
    wrong = [one for one in played if not (is_right(one, codec) and one.agree)]
    if wrong:
        return unmeasured(
            AGGREGATION,
            f"{len(wrong)} of {len(played)} rounds were wrong: "
            + (wrong[0].failure or f"a mean is off by {wrong[0].max_error:.1e}"),
        )
    seconds = [one.seconds for one in played]
    return measured(
        AGGREGATION,
        median(seconds),
        f"{peers} processes on loopback, {ELEMENTS:,} parameters, {codec}: from the end of training"
        f" to the adopted certificate; median of {len(seconds)} rounds, slowest"
        f" {max(seconds):.2f} s",
    )
