"""What a benchmark of training runs: its arms, their settings, and the peers' settings from them.

Settings of the native arm are keys of a run file ("outer.momentum"). Those of the other arms are
"learning_rate" and the fields of `HivemindRules`. `--set ARM:KEY=VALUE` changes one. `--sweep
KEY=VALUE,VALUE` makes one native variant for each combination of values.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import msgspec

from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.rules.versions import FILE_RULES
from protocol.run.founders import with_founders
from protocol.run.manifest import Manifest, SignedManifest, seal
from protocol.run.manifest_file import load_manifest
from protocol.text.toml_document import read_toml
from simulator.bench.training.model_size import SIZES, ModelSize
from simulator.bench.training.peer_settings import ARMS, Arm, HivemindRules, OptimizerRules

NATIVE_TASK = "simulator.bench.training.paced_gpt:PacedByteGpt"
DEFAULT_RUN = Path(__file__).parents[3] / "configs" / "runs" / "stdlib-gpt.toml"

Values = dict[str, int | float | str | bool]


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """An arm with the settings that differ from its usual ones."""

    arm: Arm
    settings: dict[str, str] = {}


class TrainingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole benchmark. `rate` and `rtt_ms` hold for the arms with a shaped network."""

    variants: tuple[Variant, ...]
    size: str
    peers: int
    seeds: int
    seconds: float
    step_s: float
    batch_size: int
    rate: str
    rtt_ms: float
    run_file: Path = DEFAULT_RUN

    @property
    def model(self) -> ModelSize:
        return SIZES[self.size]


def variants_of(
    arms: Sequence[str], changes: Sequence[str], sweeps: Sequence[str]
) -> tuple[Variant, ...]:
    """Return the variants that the options of the command name, in order.

    Raises:
        UserError: With code ARM, for an unknown arm or an option that cannot be read.
    """
    known = get_args(Arm)
    settings: dict[str, dict[str, str]] = {arm: {} for arm in known}
    for change in changes:
        arm, colon, rest = change.partition(":")
        key, equals, value = rest.partition("=")
        if not colon or not equals or arm not in settings:
            raise UserError(
                "ARM",
                f"{change!r} sets nothing.",
                why="a setting is written ARM:KEY=VALUE, such as native:outer.momentum=0",
                exit_code=2,
            )
        settings[arm][key] = value
    for arm in arms:
        if arm not in known:
            why = f"the arms are {', '.join(ARMS)}"
            raise UserError("ARM", f"There is no arm {arm!r}.", why=why, exit_code=2)
    found = []
    for arm in arms:
        swept = _combinations(sweeps) if arm == "native" else [{}]
        found += [
            msgspec.convert({"arm": arm, "settings": {**settings[arm], **values}}, Variant)
            for values in swept
        ]
    return tuple(found)


def _combinations(sweeps: Sequence[str]) -> list[dict[str, str]]:
    axes = []
    for sweep in sweeps:
        key, equals, values = sweep.partition("=")
        if not equals or not values:
            raise UserError(
                "ARM",
                f"{sweep!r} names no values.",
                why="a sweep is written KEY=VALUE,VALUE, such as outer.momentum=0,0.9",
                exit_code=2,
            )
        axes.append([(key, value) for value in values.split(",")])
    return [dict(chosen) for chosen in itertools.product(*axes)]


def task_options(plan: TrainingPlan, records: Path) -> Values:
    """The options of the paced task, which all arms share."""
    model = plan.model
    return {
        "layers": model.layers,
        "width": model.width,
        "heads": model.heads,
        "context": model.context,
        "step_s": plan.step_s,
        "records": str(records),
    }


def native_manifest(
    plan: TrainingPlan, variant: Variant, seed: int, records: Path, founders: Sequence[PeerId] = ()
) -> SignedManifest:
    """The run of the native arm: the shipped run file, with the benchmark's task and settings.

    Its peers are its founders, so all of them vote, as in a run that has gone on for a while.

    Raises:
        UserError: With code MANIFEST, for a setting that a run file cannot have.
    """
    rules = variant.settings.get("rules", "")
    shipped = load_manifest(plan.run_file, rules=int(rules) if rules.isdecimal() else FILE_RULES)
    shipped = with_founders(shipped, founders)
    learning_rate = (
        shipped.inner.learning_rate
        if plan.size == "0.4m"
        else plan.model.tuning["gloo"].learning_rate
    )
    tables = msgspec.to_builtins(shipped)
    tables |= {"name": "bench", "task": NATIVE_TASK, "seed": seed}
    tables["task_options"] = task_options(plan, records)
    tables["inner"] |= {"batch_size": plan.batch_size, "learning_rate": learning_rate}
    for key, value in variant.settings.items():
        _set(tables, key, value)
    try:
        return seal(msgspec.convert(tables, Manifest))
    except (msgspec.ValidationError, ValueError) as error:
        changed = ", ".join(f"{key}={value}" for key, value in variant.settings.items())
        raise UserError(
            "MANIFEST", f"No run has these settings: {changed}.", why=str(error), exit_code=2
        ) from None


def _set(tables: dict[str, object], key: str, text: str) -> None:
    """Set one key of a run file, named with its table, to a value of TOML or a plain word."""
    try:
        value = read_toml(f"value = {text}")["value"]
    except ValueError:
        value = text
    table: dict[str, object] = tables
    *path, last = key.split(".")
    for name in path:
        inside = table.setdefault(name, {})
        if not isinstance(inside, dict):
            raise UserError("MANIFEST", f"{key!r} is no key of a run file.", exit_code=2)
        table = inside
    table[last] = value


def optimizer_rules(plan: TrainingPlan, variant: Variant) -> OptimizerRules:
    """The inner optimizer of an arm that is not native: the run file's, at a rate of its own."""
    tuned = plan.model.tuning[variant.arm].learning_rate
    inner = load_manifest(plan.run_file).inner
    return OptimizerRules(
        learning_rate=float(variant.settings.get("learning_rate", tuned)),
        optimizer="muon" if inner.optimizer == "muon" else "adamw",
        momentum=inner.effective_momentum,
        beta1=inner.beta1,
        beta2=inner.beta2,
    )


def hivemind_rules(plan: TrainingPlan, variant: Variant) -> HivemindRules | None:
    """The settings of hivemind's optimizer; None for an arm without hivemind."""
    tuned = plan.model.tuning[variant.arm].hivemind
    if tuned is None:
        return None
    given: Mapping[str, str] = {
        key: value for key, value in variant.settings.items() if key != "learning_rate"
    }
    try:
        return msgspec.convert({**msgspec.to_builtins(tuned), **given}, HivemindRules, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(
            "ARM", f"{variant.arm} has no such setting.", why=str(error), exit_code=2
        ) from None
