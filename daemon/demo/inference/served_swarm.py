"""The processes of the demo of serving: the holders of each range of layers, and the API."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from pathlib import Path

import msgspec

from daemon.api.access_key import KEY_FILE
from daemon.control.client import call
from daemon.demo.inference.text_client import TextClient
from daemon.demo.process import OUTPUT_FILE, DemoProcess, Lifeline
from daemon.demo.progress_output import ProgressOutput
from daemon.demo.stop_request import StopRequest
from daemon.demo.supervisor import LOOK_S, LOOPBACK, STOP_TIMEOUT_S
from daemon.node.stage_report import StageReport
from protocol.errors import HyperGPUError, UserError
from protocol.inference.layers import LayerRange

# A stage reads the whole model for its digests, then loads its layers. SmolLM2 took 15 s on two
# busy cores, with four stages at once.
UP_TIMEOUT_S = 300.0
CONTROL_S = 2.0
_URL = re.compile(r"http://\S+/v1")


class ServedSwarm:
    """The stages of one model, and the API. Leaving the block ends every process."""

    def __init__(
        self,
        root: Path,
        model: str,
        ranges: tuple[LayerRange, ...],
        output: ProgressOutput,
        *,
        holders: int,
    ) -> None:
        """Prepare `holders` stages for each range, without starting anything.

        `root` is an existing folder for the homes, and `model` is what `hypergpud serve` takes.
        """
        self._holders = holders
        self._root, self._model, self._ranges = root, model, ranges
        self._output = output
        self._lifeline = Lifeline()
        self._stages: list[tuple[DemoProcess, LayerRange]] = []
        self._api = DemoProcess("api", root / "api")

    def __enter__(self) -> ServedSwarm:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes():
            process.kill()
        self._lifeline.close()

    def start(self, stop: StopRequest) -> TextClient | None:
        """Start all processes. Returns a client of the API; None where `stop` was set.

        Raises `UserError("DEMO")` where a process ends, or is not up in time.
        """
        join: tuple[str, ...] = ()
        for number in range(self._holders):
            for part, layers in enumerate(self._ranges):
                name = f"stage-{part + 1}-{number + 1}"
                process = DemoProcess(name, self._root / name)
                self._stages.append((process, layers))
                arguments = ["serve", self._model, "--layers", str(layers), "--port", "0"]
                process.start(self._lifeline, _settings(name), [*arguments, *_joins(join)])
                if not join:
                    # The others join the first one.
                    first = self._wait_up(process, stop)
                    if first is None:
                        return None
                    join = first.addresses[:1]
        for process, layers in self._stages:
            if self._wait_up(process, stop) is None:
                return None
            self._output.tell(f"{process.name} serves the layers {layers}.")
        self._api.start(self._lifeline, _settings("api"), ["api", "--port", "0", *_joins(join)])
        return self._wait_api(stop)

    def kill_busy(self) -> DemoProcess | None:
        """Kill -9 a stage of the last range that holds a generation now; None without one."""
        for process, layers in self._stages:
            report = _report(process)
            if layers == self._ranges[-1] and report is not None and report.generations:
                process.kill()
                return process
        return None

    def close(self) -> None:
        """Ask every process to stop."""
        for process in self._processes():
            process.ask_to_stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self._processes():
            process.wait(deadline - time.monotonic())

    def _processes(self) -> list[DemoProcess]:
        return [*(process for process, _ in self._stages), self._api]

    def _wait_up(self, process: DemoProcess, stop: StopRequest) -> StageReport | None:
        deadline = time.monotonic() + UP_TIMEOUT_S
        while not stop.wait(LOOK_S):
            if (report := _report(process)) is not None and report.addresses:
                return report
            self._check(process, deadline)
        return None

    def _wait_api(self, stop: StopRequest) -> TextClient | None:
        deadline = time.monotonic() + UP_TIMEOUT_S
        while not stop.wait(LOOK_S):
            printed = (self._api.home / OUTPUT_FILE).read_text("utf-8", "replace")
            if found := _URL.search(printed):
                key = (self._api.home / KEY_FILE).read_text("ascii").strip()
                self._output.tell(f"The API is at {found.group()}")
                return TextClient(found.group(), key)
            self._check(self._api, deadline)
        return None

    def _check(self, process: DemoProcess, deadline: float) -> None:
        if process.alive and time.monotonic() < deadline:
            return
        why = "it is not up in time" if process.alive else f"it {process.ending}"
        raise UserError(
            "DEMO",
            f"{process.name} does not work.",
            why=f"{why}; its last lines:\n{process.tail()}",
        )


def _report(process: DemoProcess) -> StageReport | None:
    """Return what a stage reports about itself; None where it is not up or does not answer."""
    try:
        answer = call(process.home, "stage", timeout_s=CONTROL_S)
        return msgspec.json.decode(answer, type=StageReport)
    except (HyperGPUError, OSError):
        return None


def _settings(name: str) -> dict[str, dict[str, object]]:
    return {
        "node": {"name": name},
        "network": {"listen_host": LOOPBACK},
        # Equal numbers of threads: the holders of a range compute the same bits.
        "worker": {"threads": 1, "nice": 0},
    }


def _joins(addresses: tuple[str, ...]) -> list[str]:
    return [part for address in addresses for part in ("--join", address)]


def ranges_of(layers: int, stages: int) -> tuple[LayerRange, ...]:
    """Split the layers into ranges of about equal length."""
    bounds = [layers * part // stages for part in range(stages + 1)]
    return tuple(LayerRange(first=first, stop=stop) for first, stop in pairwise(bounds))
