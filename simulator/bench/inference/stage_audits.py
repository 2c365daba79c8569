"""Audits spans of real stages: how many honest ones are accused, and how soon cheats are named.

A stage computes answers as it serves them: the prompt in chunks, then token by token. The auditor
repeats each answer by one prefill, and `judge` compares them span by span under the tolerance that
nodes use. A third holder, who decides, computes what the auditor computes. The stage holds the
first half of the model, whose inputs are token ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from daemon.device.processor import Device
from daemon.device.settings import WorkerSettings
from daemon.device.stages.stage_model import StageModel
from daemon.device.stages.weights.open_source import open_source
from daemon.device.stages.weights.source import WeightSource
from daemon.home.layout import user_path
from daemon.models.known_models import KNOWN, fetched_folder
from daemon.services.inference.generation import PREFILL_TOKENS
from protocol.inference.audit import judge
from protocol.inference.layers import LayerRange
from protocol.inference.span import SPAN_TOKENS
from protocol.ports.stage import MAX_CHUNK_TOKENS, Activations, Tokens
from simulator.bench.inference.cheats import AlteredSource, Cheat, cheats

PROMPT_SPANS, ANSWER_SPANS = 8, 2
"""An answer of ten spans. The decoded ones cost most of the time, and differ most."""

NAMED_WITHIN = 20
"""INFERENCE's bound: a cheat is named within so many audited spans."""


class AuditedStage(msgspec.Struct, frozen=True, kw_only=True):
    """What the audits of one stage found."""

    # "honest", or the name of the cheat.
    stage: str
    spans: int
    # Spans whose verdict is "stage_wrong".
    named: int
    # The number of the first one; 0 where no span was.
    first_named: int
    # The smallest and the largest relative difference between stage and auditor.
    least_error: float
    most_error: float

    @property
    def good(self) -> bool:
        """No honest stage is ever named, and each cheat is named soon."""
        if self.stage == "honest":
            return not self.named
        return 0 < self.first_named <= NAMED_WITHIN


def bench_stage_audits(
    model: str, spans: int, seed: int, say: Callable[[str], None]
) -> list[AuditedStage]:
    """Audit so many honest spans of a model, and `NAMED_WITHIN` of each cheat.

    Raises:
        UserError: the model cannot be served.
    """
    settings = WorkerSettings(device="cpu", threads=1)
    device = Device(settings)
    device.claim()
    place = fetched_folder(model) if model in KNOWN else user_path(model, "--model")
    source = open_source(Path(place))
    layers = LayerRange(first=0, stop=max(1, source.architecture.layers // 2))
    auditor = StageModel(source, layers, device.torch)
    found: list[AuditedStage] = []
    wanted = {"honest": (Cheat(), spans)}
    wanted |= {name: (cheat, NAMED_WITHIN) for name, cheat in cheats(layers.stop).items()}
    for name, (cheat, count) in wanted.items():
        stage = StageModel(AlteredSource(source, cheat.change), layers, device.torch)
        found.append(_audit(name, stage, cheat, auditor, source, count, seed))
        say(f"{name}: {found[-1].spans} spans, {found[-1].named} named.")
    return found


def _audit(
    name: str,
    stage: StageModel,
    cheat: Cheat,
    auditor: StageModel,
    source: WeightSource,
    count: int,
    seed: int,
) -> AuditedStage:
    made, errors, named, first = source.architecture, list[float](), 0, 0
    rng = np.random.default_rng(seed)
    tokens = min(made.context, SPAN_TOKENS * (PROMPT_SPANS + ANSWER_SPANS))
    decoded = min(SPAN_TOKENS * ANSWER_SPANS, tokens // 2)
    while len(errors) < count:
        ids = rng.integers(0, made.vocabulary, tokens, np.int32)
        served = _serve(stage, cheat, ids, tokens - decoded)
        repeated = _compute(auditor, _cut(ids, MAX_CHUNK_TOKENS))
        for start in range(0, tokens, SPAN_TOKENS):
            span = slice(start, start + SPAN_TOKENS)
            error, verdict = judge(served[span], repeated[span], repeated[span], "float32")
            errors.append(error)
            if verdict == "stage_wrong":
                named += 1
                first = first or len(errors)
            if len(errors) == count:
                break
    return AuditedStage(
        stage=name,
        spans=len(errors),
        named=named,
        first_named=first,
        least_error=min(errors),
        most_error=max(errors),
    )


def _serve(stage: StageModel, cheat: Cheat, ids: Tokens, prompt: int) -> Activations:
    """Compute an answer as a stage serves it. shape: (tokens, width)"""
    chunks = [*_cut(ids[:prompt], PREFILL_TOKENS), *_cut(ids[prompt:], 1)]
    cache = stage.new_cache(stage.layers, len(ids))
    rows: list[Activations] = []
    before: Activations | None = None
    for number, chunk in enumerate(chunks):
        result = cheat.answer(number, stage.step(cache, chunk), before)
        before = result
        rows.append(result)
    return np.concatenate(rows)


def _compute(stage: StageModel, chunks: Iterator[Tokens]) -> Activations:
    """Compute chunks one after the other. shape: (tokens, width)"""
    given = list(chunks)
    cache = stage.new_cache(stage.layers, sum(map(len, given)))
    return np.concatenate([stage.step(cache, chunk) for chunk in given])


def _cut(ids: Tokens, size: int) -> Iterator[Tokens]:
    yield from (ids[start : start + size] for start in range(0, len(ids), size))


def table(found: list[AuditedStage]) -> str:
    """Return one line for each stage."""
    lines = [f"{'stage':<14} {'spans':>6} {'named':>6} {'first':>6} {'least':>9} {'most':>9}"]
    lines += [
        f"{one.stage:<14} {one.spans:>6} {one.named:>6} {one.first_named or '-':>6}"
        f" {one.least_error:>9.1e} {one.most_error:>9.1e}"
        for one in found
    ]
    return "\n".join(lines)
