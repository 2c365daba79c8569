"""One machine that trains a run alone: the curve that a demo compares its swarm with.

    python -m daemon.demo.lone_machine --members COUNT --home HOME --lifeline FD [RUN_FILE]

It uses the worker of a node with the settings of the home, from the parameters that all nodes begin
with, and never averages. Now and then it scores its parameters on held-out samples, and writes
the curve to the home. It ends when its lifeline closes.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import msgspec
import trio

from daemon.config.loader import load_config
from daemon.demo.comparison import LonePoint
from daemon.device.process.trainer import WorkerTrainer
from daemon.device.settings import WorkerSettings
from daemon.disk.atomic import write_atomically
from daemon.node.run_choice import load_or_bundled_manifest
from daemon.services.training.genesis import genesis_parameters
from daemon.services.training.worker_settings import worker_settings
from daemon.system.offload import in_thread
from protocol.averaging.vector_layout import Vector
from protocol.evaluation.budget import first_shares
from protocol.journal import JournalEvent
from protocol.ports.trainer import Lane
from protocol.run.manifest import Manifest
from protocol.status.event_text import describe

CURVE_FILE = "alone.json"
# The lane of a node that is alone in its run.
LANE = Lane(base=0, index=0, stride=1)
# A demo lasts a minute.
SCORED_EVERY_S = 3.0
# Scoring takes at most a quarter of the time, which the comparison does not count.
COSTS_BETWEEN = 3.0

_log = logging.getLogger(__name__)


def _note(event: JournalEvent) -> None:
    _log.info("%s", describe(event)[1])


class Scorer:
    """Scores parameters on the samples that the members of a swarm score in its first minute."""

    def __init__(self, trainer: WorkerTrainer, members: int, held_out: int) -> None:
        self._trainer = trainer
        self._shares = first_shares(members, held_out)
        # How long the last score took.
        self.took_s = 0.0

    async def loss(self, parameters: Vector) -> float:
        """Return the mean loss over the samples."""
        scored = [await self._trainer.evaluate(parameters, share) for share in self._shares]
        self.took_s = sum(one.seconds for one in scored)
        return sum(one.loss * one.samples for one in scored) / sum(one.samples for one in scored)


async def train_alone(
    manifest: Manifest, settings: WorkerSettings, members: int, file: Path
) -> None:
    """Train until cancelled, and write the curve to `file`.

    A task without held-out samples has no curve: nothing is trained.
    """
    trainer = WorkerTrainer(manifest, "", settings, _note)
    async with trainer.running():
        info = await trainer.describe()
        if not info.held_out:
            return
        local = await genesis_parameters(trainer, info, manifest.seed, in_thread)
        scorer = Scorer(trainer, members, info.held_out)
        points = [LonePoint(samples=0, loss=await scorer.loss(local))]
        await trainer.train(local, LANE)
        local = local.copy()
        while True:
            await trio.sleep(max(SCORED_EVERY_S, COSTS_BETWEEN * scorer.took_s))
            work = await trainer.hand_over(LANE)
            local -= work.delta
            samples = points[-1].samples + work.samples
            points.append(LonePoint(samples=samples, loss=await scorer.loss(local)))
            write_atomically(file, [memoryview(msgspec.json.encode(points))])


def read_curve(home: Path) -> list[LonePoint]:
    """Return the points that the lone machine of a home has written so far."""
    try:
        body = (home / CURVE_FILE).read_bytes()
    except FileNotFoundError:
        return []
    return msgspec.json.decode(body, type=list[LonePoint])


def main() -> None:
    """Train a run alone until the lifeline closes."""
    parser = argparse.ArgumentParser(prog="lone_machine")
    parser.add_argument("run_file", nargs="?", type=Path)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--members", type=int, required=True)
    parser.add_argument("--lifeline", type=int, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    config, _ = load_config(given.home, None, {}, os.environ)

    async def until_released() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                train_alone,
                load_or_bundled_manifest(given.run_file),
                worker_settings(config),
                given.members,
                given.home / CURVE_FILE,
            )
            await trio.lowlevel.wait_readable(given.lifeline)
            nursery.cancel_scope.cancel()

    trio.run(until_released)


if __name__ == "__main__":
    main()
