"""Runs every arm with every seed in turn, and makes the records.

Runs alternate between the arms, so that a machine that becomes busy affects all alike.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from daemon.home.node_key import load_or_make_key
from protocol.errors import Unreachable
from protocol.identity import PeerId
from simulator.bench.allreduce.peer_hosts import PeerHosts, parse_link_rate, peer_hosts
from simulator.bench.processes import BenchProcesses
from simulator.bench.training.peer_settings import (
    OptimizerRules,
    PeerDone,
    PeerFailed,
    PeerListens,
    PeerReady,
    StartTraining,
    TrainingPeer,
    decode_said,
    encode,
    home_of,
)
from simulator.bench.training.plan import (
    TrainingPlan,
    Variant,
    hivemind_rules,
    native_manifest,
    optimizer_rules,
    task_options,
)
from simulator.bench.training.run_record import RunRecord, with_targets
from simulator.bench.training.step_log import compute_share, read_steps, void_reason, within
from simulator.harness.netns import missing_for_namespaces

if TYPE_CHECKING:
    from simulator.bench.training.held_out import HeldOutScorer

MODULE = "simulator.bench.training.peer"
# Until a peer listens or is ready: four imports of torch at once from a cold disk.
UP_S = 180.0
# From the command to the common start.
LEAD_S = 0.5
# After the end: a step, and a peer's answer.
END_S = 60.0
# Scores of one run. Each costs a second for the larger model.
SCORES = 25
# Arms that use the shaped links.
NETWORKED = ("native", "hivemind-a", "hivemind-b")

Say = Callable[[str], None]
Heard = TypeVar("Heard", PeerListens, PeerReady, PeerDone)


class Conductor:
    """The runs of one benchmark. `links` are the shaped hosts, `free` those without a shape."""

    def __init__(
        self, plan: TrainingPlan, links: PeerHosts, free: PeerHosts, root: Path, say: Say
    ) -> None:
        self._plan, self._links, self._free = plan, links, free
        self._root, self._say = root, say
        self._scorer: HeldOutScorer | None = None

    def run(self, variant: Variant, seed: int) -> RunRecord:
        """Run one variant with one seed, and score it.

        Raises:
            Unreachable: When a peer died, fell silent or did not find the others.
        """
        plan = self._plan
        folder = self._root / f"{variant.arm}-{seed}-{time.monotonic_ns()}"
        folder.mkdir()
        peers = 1 if variant.arm == "alone" else plan.peers
        where = self._links if variant.arm in NETWORKED else self._free
        manifest = b""
        if variant.arm == "native":
            signed = native_manifest(plan, variant, seed, folder, _founders(folder, peers))
            manifest = msgspec.msgpack.encode(signed)
        with BenchProcesses(variant.arm) as processes:
            join = ""
            for index in range(peers):
                settings = self._settings(variant, seed, index, peers, where, folder)
                settings = msgspec.structs.replace(settings, join=join, manifest=manifest)
                argument = msgspec.json.encode(settings).decode()
                processes.start(MODULE, argument, where.prefixes[index])
                if index == 0:
                    join = self._hear(processes, 0, PeerListens).info
            for index in range(1, peers):
                self._hear(processes, index, PeerListens)
            for index in range(peers):
                self._hear(processes, index, PeerReady)
            before = where.sent_bytes()
            began_s = time.monotonic() + LEAD_S
            until_s = began_s + plan.seconds
            for index in range(peers):
                processes.send(index, encode(StartTraining(at_s=began_s, until_s=until_s)))
            time.sleep(max(0.0, until_s - time.monotonic()))
            after = where.sent_bytes()
            done = [self._hear(processes, index, PeerDone) for index in range(peers)]
        sent = [late - early for early, late in zip(before, after, strict=True)]
        return self._record(variant, seed, folder, (began_s, until_s), done, sent)

    def _settings(
        self, variant: Variant, seed: int, index: int, peers: int, where: PeerHosts, folder: Path
    ) -> TrainingPeer:
        plan, native = self._plan, variant.arm == "native"
        return TrainingPeer(
            arm=variant.arm,
            index=index,
            peers=peers,
            seed=seed,
            batch_size=plan.batch_size,
            task_options=task_options(plan, folder),
            optimizer=OptimizerRules(learning_rate=1.0)
            if native
            else optimizer_rules(plan, variant),
            hivemind=None if native else hivemind_rules(plan, variant),
            folder=str(folder),
            spacing_s=plan.seconds / SCORES,
            host=where.hosts[index],
            device=where.device,
        )

    def _hear(self, processes: BenchProcesses, index: int, kind: type[Heard]) -> Heard:
        limit_s = END_S if kind is PeerDone else UP_S
        said = decode_said(processes.read_line(index, limit_s))
        if isinstance(said, PeerFailed):
            raise Unreachable(f"peer {index}: {said.why}")
        if not isinstance(said, kind):
            raise Unreachable(f"peer {index} said {type(said).__name__}, not {kind.__name__}")
        return said

    def _record(
        self,
        variant: Variant,
        seed: int,
        folder: Path,
        span: tuple[float, float],
        done: list[PeerDone],
        sent: list[int],
    ) -> RunRecord:
        plan = self._plan
        steps = within(read_steps(folder), *span)
        scorer = self._scorer_of_run()
        points = scorer.points(variant.arm, folder, span[0], seed)
        networked = variant.arm in NETWORKED
        kinds = dict.fromkeys(name for one in done for name in one.memory_bytes)
        return RunRecord(
            arm=variant.arm,
            settings=variant.settings,
            seed=seed,
            peers=len(done),
            parameters=scorer.parameters,
            rate=plan.rate if networked else "none",
            rtt_ms=plan.rtt_ms if networked else 0.0,
            seconds=plan.seconds,
            target=None,
            seconds_to_target=None,
            held_out_final=points[-1].loss,
            samples=len(steps) * plan.batch_size,
            bytes_per_peer=sum(sent) // len(sent) if sent else None,
            compute_share=compute_share(steps, len(done), plan.seconds),
            steps=len(steps),
            late_steps=sum(step.late for step in steps),
            memory_bytes={
                name: max(one.memory_bytes.get(name, 0) for one in done) for name in kinds
            },
            void=void_reason(steps),
            notes=tuple(dict.fromkeys(note for one in done for note in one.notes)),
            points=tuple(points),
        )

    def _scorer_of_run(self) -> HeldOutScorer:
        if self._scorer is None:
            # A late import: torch takes seconds, and the peers should start meanwhile.
            from simulator.bench.training.held_out import HeldOutScorer  # noqa: PLC0415

            self._scorer = HeldOutScorer(task_options(self._plan, self._root))
        return self._scorer


def measure(
    plan: TrainingPlan, say: Say, *, target: float | None = None, keep: Path | None = None
) -> list[RunRecord]:
    """Run the whole benchmark.

    Args:
        plan: What to run.
        say: Shows progress to a person.
        target: The loss to reach; None: what "alone" reaches with the same seed.
        keep: Where logs and journals stay; None removes them.

    Raises:
        UserError: With code NETNS or RATE, for links that this machine cannot make.
        Unreachable: When the peers of an arm cannot run.
    """
    downlink_bps, uplink_bps = parse_link_rate(plan.rate)
    # Without root there are no namespaces, and no count of bytes.
    isolated = not missing_for_namespaces()
    records = []
    with ExitStack() as stack:
        root = stack.enter_context(_folder(keep))
        links = stack.enter_context(
            peer_hosts(
                plan.peers,
                uplink_bps,
                plan.rtt_ms / 1000,
                say,
                downlink_bps=downlink_bps,
                isolated=isolated,
            )
        )
        free = stack.enter_context(peer_hosts(plan.peers, None, 0.0, say))
        conductor = Conductor(plan, links, free, root, say)
        for seed in range(1, plan.seeds + 1):
            for variant in plan.variants:
                changed = "".join(f" {key}={value}" for key, value in variant.settings.items())
                say(f"seed {seed}: {variant.arm}{changed}, {plan.seconds:g} s")
                record = conductor.run(variant, seed)
                records.append(record)
                say(
                    f"held-out {record.held_out_final:.3f}, {record.late_steps} of {record.steps}"
                    f" steps late, {record.compute_share:.0%} of the time computing"
                )
    return with_targets(records, target)


def _founders(folder: Path, peers: int) -> list[PeerId]:
    """Make the native peers' homes and keys."""
    founders = []
    for index in range(peers):
        home = home_of(folder, index)
        home.mkdir(mode=0o700)
        founders.append(load_or_make_key(home)[0].peer)
    return founders


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="hypergpu-bench-") as made:
        # Peers in a namespace have the same file system.
        yield Path(os.path.realpath(made))
