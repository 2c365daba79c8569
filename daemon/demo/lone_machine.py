"""One machine that trains a run alone: the curve that a demo compares its swarm with.

    python -m daemon.demo.lone_machine --home HOME --lifeline FD [RUN_FILE]

It uses the worker of a node with the settings of the home, from the parameters that all nodes begin
with, and never averages. Now and then it scores its parameters on all held-out samples, and writes
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
from daemon.services.training.worker_settings import worker_settings
from protocol.journal import JournalEvent
from protocol.ports.trainer import HeldOutShare, Lane
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Manifest
from protocol.status.event_text import describe

CURVE_FILE = "alone.json"
WHOLE = HeldOutShare(index=0, count=1)
# The lane of a node that is alone in its run.
LANE = Lane(base=0, index=0, stride=1)
# A demo lasts a minute.
SCORED_EVERY_S = 3.0
# Scoring takes at most a tenth of the time.
COSTS_BETWEEN = 10.0

_log = logging.getLogger(__name__)


def _note(event: JournalEvent) -> None:
    _log.info("%s", describe(event)[1])


async def train_alone(manifest: Manifest, settings: WorkerSettings, file: Path) -> None:
    """Train until cancelled, and write the curve to `file`.

    A task without held-out samples has no curve: nothing is trained.
    """
    trainer = WorkerTrainer(manifest, "", settings, _note)
    async with trainer.running():
        info = await trainer.describe()
        if not info.held_out:
            return
        local = initial_parameters(info.specs, manifest.seed)
        scored = await trainer.evaluate(local, WHOLE)
        points = [LonePoint(samples=0, loss=scored.loss)]
        await trainer.train(local, LANE)
        local = local.copy()
        while True:
            await trio.sleep(max(SCORED_EVERY_S, COSTS_BETWEEN * scored.seconds))
            work = await trainer.hand_over(LANE)
            local -= work.delta
            samples = points[-1].samples + work.samples
            scored = await trainer.evaluate(local, WHOLE)
            points.append(LonePoint(samples=samples, loss=scored.loss))
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
    parser.add_argument("--lifeline", type=int, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    config, _ = load_config(given.home, None, {}, os.environ)

    async def until_released() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                train_alone,
                load_or_bundled_manifest(given.run_file),
                worker_settings(config.worker),
                given.home / CURVE_FILE,
            )
            await trio.lowlevel.wait_readable(given.lifeline)
            nursery.cancel_scope.cancel()

    trio.run(until_released)


if __name__ == "__main__":
    main()
