"""Measures the time per token over links with a round trip, beside the same stages on loopback.

Every stage and the client are machines of their own: namespaces with a process between them that
holds each packet. They need root.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import trio

from daemon.cli.invocation import Invocation
from daemon.config.loader import load_config
from daemon.control.client import call
from daemon.demo.inference.served_swarm import ranges_of
from daemon.demo.process import DemoProcess, Lifeline
from daemon.home.layout import ensure_home
from daemon.node.stage_report import StageReport
from daemon.results.served_model import open_served_model
from protocol.errors import UserError
from protocol.inference.layers import LayerRange
from simulator.bench.inference.token_clock import ClockedAnswers
from simulator.harness.clusters import ClusterLink, clusters

LOOPBACK = "127.0.0.1"
# INFERENCE's bound: so many round trips for each hop, beyond the time on loopback.
LIMIT_RTTS = 1.1
UP_S, LOOK_S, CLIENT_S = 300.0, 0.25, 900.0


class FarTokenTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The median time between two tokens, over far links and on loopback."""

    model: str
    stages: int
    rtt_ms: float
    far_ms: float
    near_ms: float
    same_tokens: bool

    @property
    def rtts_per_hop(self) -> float:
        """How many round trips each hop adds."""
        return (self.far_ms - self.near_ms) / (self.rtt_ms * self.stages)

    @property
    def good(self) -> bool:
        """Whether the tokens are the same, and the time within the limit."""
        return self.same_tokens and self.rtts_per_hop <= LIMIT_RTTS


class _Place:
    """Where a process runs: its address, and the words before its command."""

    def __init__(self, host: str, prefix: Sequence[str] = ()) -> None:
        self.host, self.prefix = host, tuple(prefix)


def measure_far_tokens(
    invocation: Invocation, *, model: str, stages: int, tokens: int, answers: int, rtt_s: float
) -> FarTokenTimes:
    """Serve the model near, then far, and measure. On return no process is left.

    Raises:
        UserError: "NETNS" without root, "BENCH" where a process fails, or the model's own.
    """
    root = Path(tempfile.mkdtemp(prefix="hypergpu-bench-"))
    try:
        config, _ = load_config(root / "reader", None, {"worker.device": "cpu"}, {})
        local = trio.run(open_served_model, config, model, invocation.say)
        ranges = ranges_of(local.manifest.layers, stages)
        with clusters(
            stages + 1, 1, ClusterLink(delay_s=rtt_s / 2), uplink_bps=None, downlink_bps=None
        ) as made:
            far = [_Place(made.host(place), made.prefix(place)) for place in range(stages + 1)]
            found: list[ClockedAnswers] = []
            for name, places in (("near", [_Place(LOOPBACK)] * (stages + 1)), ("far", far)):
                folder = root / name
                folder.mkdir()
                with _served(folder, str(local.source), ranges, places) as address:
                    invocation.say(f"Measuring {name}.")
                    found.append(_clock(folder, places[-1], address, stages, tokens, answers))
        near_ms, far_ms = (1000 * statistics.median(one.gaps_s) for one in found)
        return FarTokenTimes(
            model=model,
            stages=found[1].stages,
            rtt_ms=1000 * rtt_s,
            far_ms=far_ms,
            near_ms=near_ms,
            same_tokens=found[0].tokens == found[1].tokens,
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _served(
    folder: Path, model: str, ranges: Sequence[LayerRange], places: Sequence[_Place]
) -> Iterator[str]:
    """Run the stages, and yield the address of the first one."""
    with ExitStack() as stack:
        lifeline = Lifeline()
        stack.callback(lifeline.close)
        processes: list[DemoProcess] = []
        address = ""
        for number, (layers, place) in enumerate(zip(ranges, places, strict=False)):
            process = DemoProcess(f"stage-{number}", folder / f"stage-{number}", place.prefix)
            stack.callback(process.kill)
            processes.append(process)
            join = ["--join", address] if address else []
            settings: dict[str, dict[str, object]] = {
                "node": {"name": process.name},
                "network": {"listen_host": place.host, "upnp": False, "mdns": False},
                "worker": {"threads": 1, "device": "cpu"},
            }
            process.start(lifeline, settings, ["serve", model, "--layers", str(layers), *join])
            address = address or _address(process)
        for process in processes:
            _address(process)
        yield address


def _address(process: DemoProcess) -> str:
    """Wait until a stage is up, and return its address. Raises `UserError("BENCH")`."""
    deadline = time.monotonic() + UP_S
    while process.alive and time.monotonic() < deadline:
        try:
            report = msgspec.json.decode(call(process.home, "stage"), type=StageReport)
        except UserError:
            time.sleep(LOOK_S)
            continue
        return report.addresses[0]
    raise UserError("BENCH", f"{process.name} is not up.", why=process.tail())


def _clock(
    folder: Path, place: _Place, address: str, stages: int, tokens: int, answers: int
) -> ClockedAnswers:
    """Run the client. Raises `UserError("BENCH")`."""
    home = folder / "client"
    ensure_home(home)
    module = [sys.executable, "-m", "simulator.bench.inference.token_clock"]
    numbers = [str(stages), str(tokens), str(answers)]
    done = subprocess.run(
        [*place.prefix, *module, str(home), place.host, *numbers, address],
        capture_output=True,
        timeout=CLIENT_S,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace")[-2000:]
        raise UserError("BENCH", "The client of the benchmark failed.", why=said)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=ClockedAnswers)
