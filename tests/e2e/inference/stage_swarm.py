"""Real `hypergpud serve` processes on loopback, which a test kills at any token."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

from daemon.config.settings import Config, NetworkConfig, WorkerConfig
from daemon.demo.process import Lifeline
from daemon.home.layout import KEY_FILE
from daemon.node.model_client import JoinedModel, joined_model
from daemon.services.inference.generation import Generation, GenerationRequest
from protocol.generation.sampler import SamplingRules
from protocol.identity import Signer
from protocol.inference.recovery_events import GenerationEvent
from tests.daemon.device.stages.run_models import write_byte_gpt
from tests.e2e.processes import Process, descendants, process, still_running, until

# Two imports of torch, on a busy machine.
READY_S = 120.0
PROMPT = tuple(b"def main(")


class StageDaemon:
    """One stage in a home of its own."""

    def __init__(self, home: Path, model: str, layers: str, lifeline: Lifeline, *more: str) -> None:
        """`more` are further options of `hypergpud serve`."""
        self.home, self.layers, self._more = home, layers, more
        self._model, self._lifeline = model, lifeline
        self._log = home.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def start(self, *join: str) -> None:
        """Start the process, again with the key and the port of its first start."""
        options = [word for address in join for word in ("--join", address)]
        command = [sys.executable, "-m", "daemon.cli.main", "serve", self._model]
        command += ["--layers", self.layers, "--lifeline", str(self._lifeline.read_end), *options]
        command += ["--port", str(self._port), *self._more]
        kept = {name: value for name, value in os.environ.items() if "HYPERGPU" not in name}
        environ = kept | {
            "HYPERGPU_HOME": str(self.home),
            "HYPERGPU_NETWORK_LISTEN_HOST": "127.0.0.1",
            "HYPERGPU_WORKER_THREADS": "1",
            "HYPERGPU_WORKER_DEVICE": "cpu",
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environ, stdout=log, stderr=log, pass_fds=[self._lifeline.read_end]
            )

    def wait_ready(self) -> str:
        """Wait until the stage serves. Returns its address."""
        assert self._process is not None

        def look() -> str:
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            found = self.log().partition("--join ")[2].split()
            return found[0] if "Ready" in self.log() and found else ""

        address = until(look, f"a stage of layers {self.layers} is ready", READY_S)
        self._port = int(address.split("/")[4])
        return address

    @property
    def peer(self) -> str:
        return Signer((self.home / KEY_FILE).read_bytes()).peer

    def family(self) -> list[Process]:
        assert self._process is not None
        return [process(self._process.pid), *descendants(self._process.pid)]

    def kill(self) -> None:
        """`kill -9` the node process. Its worker must end by itself."""
        assert self._process is not None
        family = self.family()
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        until(lambda: not still_running(set(family)), "the stage left nothing running", 10)

    def stop_signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


class StageSwarm:
    """The stages of one small byte GPT with three layers."""

    def __init__(self, root: Path, lifeline: Lifeline) -> None:
        self.root = root
        self.model = root / "gpt.safetensors"
        write_byte_gpt(self.model)
        self.stages: list[StageDaemon] = []
        self.addresses: list[str] = []
        self.lifeline = lifeline

    def start(self, *layers: str) -> None:
        """Start a stage for each range, the first one before the others."""
        for index, one in enumerate(layers):
            home = self.root / f"stage-{len(self.stages)}"
            stage = StageDaemon(home, str(self.model), one, self.lifeline)
            stage.start(*self.addresses[:1])
            self.stages.append(stage)
            if index == 0 and not self.addresses:
                self.addresses.append(stage.wait_ready())
        for stage in self.stages[len(self.addresses) :]:
            self.addresses.append(stage.wait_ready())

    def of(self, peer: str) -> StageDaemon:
        return next(stage for stage in self.stages if stage.peer == peer)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[JoinedModel]:
        """Run a client until the end of the block. It knows all stages at the beginning."""
        config = Config(
            home=self.root,
            network=NetworkConfig(listen_host="127.0.0.1", join=tuple(self.addresses)),
            worker=WorkerConfig(device="cpu"),
        )

        def refuse(reason: str, peer: str, detail: str) -> None:
            raise AssertionError(f"{peer} was refused ({reason}): {detail}")

        async with joined_model(config, "", refuse) as joined:
            await self.until_known(joined, len(self.stages))
            yield joined

    async def until_known(self, joined: JoinedModel, count: int) -> None:
        """Wait until the client knows so many stages."""
        with trio.fail_after(60):
            while len(joined.client.choice.holders()) < count:
                await trio.sleep(0.1)


@contextmanager
def stage_swarm(root: Path) -> Iterator[StageSwarm]:
    """Leave nothing running at the end of the block."""
    lifeline = Lifeline()
    swarm = StageSwarm(root, lifeline)
    try:
        yield swarm
    except BaseException:
        for stage in swarm.stages:
            print(f"--- layers {stage.layers} at {stage.home}\n{stage.log()[-4000:]}")
        raise
    finally:
        for stage in swarm.stages:
            stage.end()
        lifeline.close()


def request(tokens: int, temperature: float) -> GenerationRequest:
    """A request whose tokens vary: this model repeats itself at lower temperatures."""
    rules = SamplingRules(temperature=temperature, top_p=1.0, seed=3)
    return GenerationRequest(prompt=PROMPT, max_tokens=tokens, rules=rules)


async def generate(
    joined: JoinedModel,
    wanted: GenerationRequest,
    kills: dict[int, int] | None = None,
    swarm: StageSwarm | None = None,
    events: list[GenerationEvent] | None = None,
) -> tuple[Generation, list[StageDaemon]]:
    """Generate to the end, and kill hops on the way.

    Args:
        kills: the hop to kill before each of these tokens.

    Returns:
        The generation, and the killed stages.
    """
    killed: list[StageDaemon] = []
    report = (events if events is not None else []).append
    async with joined.client.generation(wanted, report=report) as generation:
        while True:
            place = (kills or {}).get(len(generation.tokens))
            if place is not None and len(killed) < len(kills or {}):
                assert swarm is not None
                killed.append(swarm.of(generation.peers[place]))
                killed[-1].kill()
            if await generation.next_token() is None:
                return generation, killed
