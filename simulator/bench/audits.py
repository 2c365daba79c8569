"""`hypergpud bench audits`: what work audits make of honest work, and of everything else.

A few members train a shipped task in rounds in this process, with the worker's own training loop,
the run's codec and the outer optimizer. After each round every contribution is audited as a voter
does it (`protocol/audit`), and so are the cheats. `for` and
`against` are the shares of five audits of one kind that would speak for and against a contributor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import numpy as np

from daemon.device import shared_memory
from daemon.device.loops.training import TrainingLoop
from daemon.device.model.author_code import SampleFault
from daemon.device.processor import Device
from daemon.device.settings import Job, WorkerSettings
from daemon.device.tasks.catalog import load_task
from protocol.audit.samples import AuditGroups, DrawnStretch, audit_groups
from protocol.audit.score import (
    AGAINST_BELOW,
    AUDITS,
    FOR_FROM,
    GROSS_AUDITS,
    GROSS_BELOW,
    score_of,
)
from protocol.averaging.outer_step import outer_step
from protocol.averaging.vector_layout import Vector
from protocol.codec import codec_named
from protocol.identity import Signer
from protocol.ports.trainer import Lane
from protocol.run.initial_parameters import initial_parameters
from protocol.run.manifest import Inner, Outer

SETTINGS = WorkerSettings(device="cpu", threads=1)
SEED = 3
MEMBERS = 4
SPARE_LANES = 8
# Random sequences of audits behind each share.
SEQUENCES = 200_000
# Elements of a contribution that are fetched or left out together, where only a part is fetched.
# A chunk has more; a shipped model for this measurement has few chunks.
PART = 512

HONEST = "honest"
KINDS = (HONEST, "half", "tenth", "zeros", "noise", "negated", "stale", "foreign", "mean")


class AuditCase(msgspec.Struct, frozen=True, kw_only=True):
    """One task and codec. `fetched` is the share of each contribution that the auditor sees."""

    name: str
    task: str
    options: dict[str, int | float | str | bool]
    inner: Inner
    codec: str
    steps: int = 64
    rounds: int = 12
    fetched: float = 1.0


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of one kind of work in one case."""

    case: str
    kind: str
    audits: int
    mean: float
    lowest: float
    favoured: float
    against: float


# Small, so that hundreds of audits take minutes on one core.
_GPT: dict[str, int | float | str | bool] = {
    "layers": 2,
    "heads": 2,
    "width": 48,
    "context": 32,
    "corpus": "stdlib",
}
_WARM = Inner(batch_size=8, learning_rate=2e-3, warmup_samples=960)


def shipped_cases(codecs: Sequence[str], rounds: int) -> list[AuditCase]:
    """The shipped tasks in these codecs, and once with an eighth of each contribution."""
    cases: list[AuditCase] = []
    for codec in codecs:
        cases += [
            AuditCase(
                name=f"byte_gpt {codec}",
                task="byte_gpt",
                options=_GPT,
                inner=_WARM,
                codec=codec,
                rounds=rounds,
            ),
            AuditCase(
                name=f"byte_gpt {codec}, eighth",
                task="byte_gpt",
                options=_GPT,
                inner=_WARM,
                fetched=0.125,
                codec=codec,
                rounds=rounds,
            ),
            AuditCase(
                name=f"simple_cnn {codec}",
                task="simple_cnn",
                options={},
                inner=Inner(batch_size=8),
                steps=16,
                codec=codec,
                rounds=rounds,
            ),
        ]
    return cases


class _Member:
    """One member's training loop, in this process."""

    def __init__(self, case: AuditCase, number: int) -> None:
        job = Job(
            task=case.task,
            task_options=case.options,
            seed=SEED,
            inner=case.inner,
            peer=Signer(bytes([number + 1]) * 32).peer,
            holds_out=True,
        )
        self.loop = TrainingLoop(
            load_task(case.task, case.options, SETTINGS), Device(SETTINGS), job
        )
        fd = shared_memory.create()
        shared_memory.give_size(fd, self.loop.parameters, self.loop.inner_size)
        self.memory = shared_memory.SharedMemory(fd, self.loop.parameters, self.loop.inner_size)
        self.loop.share(self.memory)

    def work(self, anchor: Vector, lane: Lane, steps: int, position: int) -> Vector:
        """Return the displacement of `steps` steps from `anchor` along `lane`."""
        self.memory.anchor[:] = anchor
        self.loop.train(lane, steps, position=position)
        while self.loop.training:
            try:
                self.loop.step()
            except SampleFault:
                continue
        self.loop.pause()
        return self.memory.delta.copy()

    def losses(self, parameters: Vector, groups: np.ndarray) -> np.ndarray:
        """Return the mean loss of each group of positions."""
        self.memory.scored[:] = parameters
        return np.array(self.loop.group_losses(groups.tolist()).losses)


class _Swarm:
    """The members of one case, with their anchor and what they contributed before."""

    def __init__(self, case: AuditCase) -> None:
        self.case = case
        self.members = [_Member(case, number) for number in range(MEMBERS)]
        loop = self.members[0].loop
        self.trained = loop.split.trained
        self.anchor: Vector = initial_parameters(loop.specs, SEED)
        self.momentum = np.zeros_like(self.anchor)
        self.rng = np.random.Generator(np.random.PCG64(SEED))
        self.base = self.samples = 0
        self.before: list[list[Vector]] = []
        self.mean: Vector | None = None

    def round(self, cheats: Sequence[str]) -> list[tuple[str, float]]:
        """Play a round. Returns (kind, score) of each audit."""
        case, count = self.case, self.case.steps * self.case.inner.batch_size
        stride = MEMBERS + SPARE_LANES
        lanes = [Lane(base=self.base, index=i, stride=stride) for i in range(MEMBERS)]
        offers = [
            self._sent(member.work(self.anchor, lane, case.steps, self.samples))
            for member, lane in zip(self.members, lanes, strict=True)
        ]
        named = [DrawnStretch(lane=lane, first=0, count=count) for lane in lanes]
        mean = np.asarray(np.mean(np.stack(offers), axis=0), np.float32)
        state = np.empty_like(self.anchor), np.empty_like(self.anchor)
        outer_step(self.anchor, self.momentum, mean, Outer(), *state)
        found: list[tuple[str, float]] = []
        for number in range(MEMBERS):
            others = [stretch for i, stretch in enumerate(named) if i != number]
            groups = audit_groups(
                [named[number]], others, seed=SEED, trained=self.trained, rng=self.rng
            )
            if groups is None:
                continue
            kinds: dict[str, Vector] = {HONEST: offers[number]}
            if self.before:
                kinds |= self._cheats(number, offers, lanes, cheats)
            found += self._audited(number, offers, groups, kinds)
        self.anchor, self.momentum = state
        self.mean, self.base = mean, self.base + count * stride
        self.samples += count * MEMBERS
        self.before = [*self.before[-2:], offers]
        return found

    def _cheats(
        self, number: int, offers: list[Vector], lanes: list[Lane], wanted: Sequence[str]
    ) -> dict[str, Vector]:
        own, steps = offers[number], self.case.steps
        made: dict[str, Callable[[], Vector]] = {
            "zeros": lambda: np.zeros_like(own),
            "noise": lambda: self._noise(own),
            "negated": lambda: -own,
            "stale": lambda: self.before[0][number],
            "foreign": lambda: offers[(number + 1) % MEMBERS],
            "mean": lambda: own if self.mean is None else self.mean,
            "half": lambda: self._partial(number, lanes[number], steps // 2),
            "tenth": lambda: self._partial(number, lanes[number], max(1, steps // 10)),
        }
        return {kind: made[kind]() for kind in wanted}

    def _partial(self, number: int, lane: Lane, steps: int) -> Vector:
        return self._sent(self.members[number].work(self.anchor, lane, steps, self.samples))

    def _noise(self, like: Vector) -> Vector:
        noise = self.rng.standard_normal(like.size, np.float32)
        return noise * np.float32(np.linalg.norm(like) / np.linalg.norm(noise))

    def _sent(self, delta: Vector) -> Vector:
        """Return a displacement as it arrives: encoded and decoded."""
        codec, out = codec_named(self.case.codec), np.empty_like(delta)
        codec.decode(codec.encode(delta), out)
        return out

    def _audited(
        self, number: int, offers: list[Vector], groups: AuditGroups, kinds: dict[str, Vector]
    ) -> list[tuple[str, float]]:
        """Return the score of each kind of work, had member `number` offered it."""
        auditor, half = self.members[0], len(groups.own)
        positions = np.concatenate([groups.own, groups.others])
        parts = -(-self.anchor.size // PART)
        seen = np.repeat(self.rng.random(parts) < self.case.fetched, PART)[: self.anchor.size]
        rest = np.sum([offer for i, offer in enumerate(offers) if i != number], axis=0)
        found = []
        for kind, contribution in kinds.items():
            if not contribution.any():
                found.append((kind, 0.0))
                continue
            mean = (rest + contribution) / np.float32(len(offers))
            with_mean, with_work = (
                auditor.losses(self.anchor - np.where(seen, vector, np.float32(0)), positions)
                for vector in (mean, contribution)
            )
            advantages = (with_mean - with_work).tolist()
            found.append((kind, score_of(advantages[:half], advantages[half:])))
        return found


def measure(
    cases: Sequence[AuditCase], kinds: Sequence[str], say: Callable[[str], None]
) -> list[AuditRow]:
    """Play each case, and return a row for each kind of work in it."""
    # One thread, as in a worker: idle threads of torch would spin. A second call changes nothing.
    device = Device(SETTINGS)
    with suppress(RuntimeError):
        device.claim()
    device.enter_thread()
    rows: list[AuditRow] = []
    for case in cases:
        say(f"{case.name}: {case.rounds} rounds of {MEMBERS} members")
        swarm = _Swarm(case)
        found = [
            audit
            for _ in range(case.rounds)
            for audit in swarm.round([kind for kind in kinds if kind != HONEST])
        ]
        for kind in kinds:
            scores = np.array([score for known, score in found if known == kind])
            if scores.size:
                rows.append(_row(case.name, kind, scores, swarm.rng))
    return rows


def table(rows: Sequence[AuditRow]) -> str:
    """Return the rows for a person."""
    lines = [
        f"{'case':<24} {'work':<8} {'audits':>6} {'mean':>5} {'least':>5} {'for':>7} {'against':>8}"
    ]
    lines += [
        f"{row.case:<24} {row.kind:<8} {row.audits:>6} {row.mean:>5.2f} {row.lowest:>5.2f}"
        f" {row.favoured:>7.2%} {row.against:>8.3%}"
        for row in rows
    ]
    return "\n".join(lines)


def _row(case: str, kind: str, scores: np.ndarray, rng: np.random.Generator) -> AuditRow:
    drawn = rng.choice(scores, size=(SEQUENCES, AUDITS))
    means, last = drawn.mean(axis=1), drawn[:, -GROSS_AUDITS:].mean(axis=1)
    against = (means < AGAINST_BELOW) | (last < GROSS_BELOW)
    return AuditRow(
        case=case,
        kind=kind,
        audits=scores.size,
        mean=float(scores.mean()),
        lowest=float(scores.min()),
        favoured=float(((means >= FOR_FROM) & ~against).mean()),
        against=float(against.mean()),
    )
