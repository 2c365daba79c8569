"""Trains a small model of our own with two nodes, and asks `hypergpud sample` for a text of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from daemon.config.settings import PREFIX
from daemon.demo.founders import with_demo_founders
from daemon.demo.progress_output import ProgressOutput
from daemon.demo.stop_request import StopRequest
from daemon.demo.supervisor import DemoSupervisor
from daemon.home.recent_state import last_run
from daemon.node.run_choice import bundled_text
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError

RUN_FILE = "served-gpt.toml"
NODES, ROUNDS = 2, 8
# The first round must come within a minute, the others within a few seconds each.
STALL_S = 180.0
SAMPLE_S = 120.0


class TrainedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A run's model in a home whose node has stopped."""

    home: Path
    run: str


def train_model(root: Path, output: ProgressOutput, stop: StopRequest) -> TrainedModel | None:
    """Train a model with real nodes; None where `stop` was set.

    Raises `UserError("DEMO")` where the nodes certify no round.
    """
    output.tell(f"Training a byte-level GPT with {NODES} nodes for {ROUNDS} rounds.")
    homes = [root / f"node-{number + 1}" for number in range(NODES)]
    file = root / RUN_FILE
    file.write_text(with_demo_founders(bundled_text(RUN_FILE), homes), encoding="utf-8")
    with DemoSupervisor(root, file, NODES, output) as supervisor:
        reason = supervisor.run(ROUNDS, STALL_S, stop)
        supervisor.close()
        members = supervisor.members()
    if stop.is_set():
        return None
    signed = last_run(members[0].home) if members else None
    if reason or signed is None:
        raise UserError(
            "DEMO", "The nodes trained no model.", why=reason or "no round was certified"
        )
    return TrainedModel(home=members[0].home, run=signed.run.hex()[:SHOWN_DIGITS])


def sample_of(model: TrainedModel, prompt: str, tokens: int, seed: int) -> str:
    """Return the text that `hypergpud sample` continues the prompt with.

    Its temperature and its top_p have their defaults. Raises `UserError("DEMO")`.
    """
    command = [sys.executable, "-m", "daemon.cli.main", "sample", model.run, "--prompt", prompt]
    options = ["--tokens", str(tokens), "--seed", str(seed), "--device", "cpu", "--json"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    done = subprocess.run(
        [*command, *options, "--home", str(model.home)],
        capture_output=True,
        timeout=SAMPLE_S,
        check=False,
        env=environ,
    )
    if done.returncode:
        raise UserError(
            "DEMO", "hypergpud sample failed.", why=done.stderr.decode("utf-8", "replace").strip()
        )
    found = msgspec.json.decode(done.stdout, type=dict[str, Any])
    text: str = found["samples"][0]
    return text.removeprefix(prompt)
