"""Every version of the rules computes what it computed when it was written down here.

A difference means that two releases of one version no longer plan, sum or step alike, and that
their members certify nothing together. Put the old function back and register the new one under the
next version (`protocol/rules/registry.py`). Only while a version was never released may its pin
change: the failure says to what.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
import numpy as np
import pytest

from protocol.averaging.clip import ClipPart, ClipScale
from protocol.averaging.group_layout import GroupLayout, layout_of
from protocol.averaging.plan_terms import plan_terms
from protocol.averaging.step_norm import energies, limit_step
from protocol.averaging.vector_layout import Vector
from protocol.averaging.weights import weights_in
from protocol.codec import codec_named
from protocol.digest import digest
from protocol.planning.group_proposals import GroupBounds
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.rules.registry import RULE_SETS, RuleSet
from protocol.rules.versions import FIRST_RULES, KNOWN_RULES, RULES_2, RULES_4
from protocol.run.manifest import Manifest, Outer, RoundRules
from protocol.run.manifest_versions import RULES_3
from tests.protocol.planning.test_group_choice import SIZES, regions
from tests.protocol.rounds import named, people


def _choice(rules: RuleSet) -> list[bytes]:
    made: list[bytes] = []
    for count in (2, 3, 5, 8, 13, 24, 48):
        for before in (
            None,
            GroupSizeHistory(size=4),
            GroupSizeHistory(size=8, leaning=1, times=2),
        ):
            for view in (
                regions(count),
                msgspec.structs.replace(regions(count, seed=2), measured=False),
            ):
                laid = rules.choose(view, GroupBounds(least=2, most=16), SIZES, before)
                # The reason is for people: versions may word it differently. The names here are
                # those under which the pins were recorded.
                recorded = {
                    "rows": laid.groups,
                    "shares": laid.shares,
                    "predicted_s": laid.predicted_s,
                    "reason": "",
                    "after": laid.after,
                }
                made.append(msgspec.msgpack.encode(recorded))
    return made


def _shares(rules: RuleSet) -> list[bytes]:
    rng, made = Random(1), []
    for count in range(1, 20):
        for shares in (
            [1.0] * count,
            [rng.random() for _ in range(count)],
            [float(rng.randint(0, 2)) for _ in range(count)] + [1.0],
        ):
            made.append(
                msgspec.msgpack.encode(
                    [rules.share_out(chunks, shares) for chunks in (1, 5, 10, 11, 997)]
                )
            )
    return made


def _layouts(rules: RuleSet) -> list[bytes]:
    groups = ((0, 1, 2), (3, 4, 5, 6), (7, 8, 9))
    return [
        _pinned_layout(layout_of(groups, (0, size, 2 * size, 3 * size), rules.share_out))
        for size in (1, 4, 5, 100)
    ]


def _pinned_layout(layout: GroupLayout) -> bytes:
    """Encode a layout with the field names that it had when its pin was made."""
    return msgspec.msgpack.encode(
        {
            "rows": layout.groups,
            "row_of": layout.group_of,
            "parts": layout.parts,
            "slices": layout.slices,
            "ranks": layout.counterparts,
        }
    )


def _leaders(rules: RuleSet) -> list[bytes]:
    return [
        "".join(rules.leader_order(named(word), [person.peer for person in people(9)])).encode()
        for word in ("one", "two", "three")
    ]


def _vectors(seed: int, count: int) -> list[Vector]:
    return [
        np.random.Generator(np.random.PCG64(seed + i)).standard_normal(5000, np.float32)
        for i in range(count)
    ]


def _sums(rules: RuleSet) -> list[bytes]:
    made = []
    for name in ("float32", "bfloat16", "int8", "int4"):
        codec, out = codec_named(name), np.empty(5000, np.float32)
        rules.weighted_mean(
            [(i + 1, codec.encode(part)) for i, part in enumerate(_vectors(1, 4))], codec, out
        )
        made.append(out.tobytes())
    return made


def _steps(rules: RuleSet) -> list[bytes]:
    anchor, momentum, mean = _vectors(9, 3)
    outs = [np.empty(5000, np.float32) for _ in range(3)]
    rules.outer_step(anchor, momentum, mean, PINNED_OUTER, outs[0], outs[1])
    rules.merge_vectors(anchor, momentum, (300, 200), outs[2])
    return [out.tobytes() for out in outs]


def _lengths(rules: RuleSet) -> list[bytes]:
    if rules.next_round_s is None:
        return [b"one length"]
    made: list[bytes] = []
    for bounds in (
        RoundRules(seconds=60.0, min_seconds=2.0),
        RoundRules(seconds=5.0, min_seconds=0.7, overlap=False),
        RoundRules(seconds=5.0, min_seconds=5.0),
        RoundRules(seconds=60.0, steps=100),
    ):
        length: float | None = None
        for predicted_s in (None, 0.01, 0.35, 3.3, 8.0, 8.0, None, 0.02, 0.02, 1e6):
            length = rules.next_round_s(length, predicted_s, bounds)
            made.append(msgspec.msgpack.encode(length))
    return made


def _schedules(rules: RuleSet) -> list[bytes]:
    outer = Outer(learning_rate=0.7, momentum=0.9, momentum_warmup_samples=1000)
    manifest = Manifest(name="run", task="module:Task", outer=outer)
    found = [rules.outer_at(manifest, samples) for samples in (0, 1, 333, 999, 1000, 1 << 40)]
    return [msgspec.msgpack.encode((each.learning_rate, each.momentum)) for each in found]


def _clipped_sums(rules: RuleSet) -> list[bytes]:
    made = []
    for name in ("float32", "bfloat16", "int8", "int4", "topk"):
        codec, out = codec_named(name), np.empty(5000, np.float32)
        for norm in (0.0, 30.0):
            parts = [
                ClipPart(weight=i + 1, data=codec.encode(part * np.float32(i)), votes=i < 5)
                for i, part in enumerate(_vectors(1, 6))
            ]
            kept = rules.clipped_mean(parts, ClipScale(norm=norm, parameters=9000), codec, out)
            made += [out.tobytes(), kept.tobytes()]
    return made


def _terms(rules: RuleSet) -> list[bytes]:
    rng, made = Random(4), []
    for count in (1, 2, 4, 5, 9, 64):
        for policy in ("open", "invite"):
            samples = [rng.randint(0, 1 << rng.randint(1, 30)) for _ in range(count)]
            roles = [rng.randint(0, 2) for _ in range(count)]
            new = [i for i in range(count) if roles[i] == 0]
            own = [
                [(rng.randint(1, 1000), rng.uniform(1, 60)) for _ in range(rng.randint(0, 12))]
                for _ in range(count)
            ]
            norms = [rng.choice([0.0, rng.random()]) for _ in range(rng.randint(0, 32))]
            voters = [i for i in range(count) if roles[i] == 2]
            terms = plan_terms(samples, voters, new, own, norms, 17.5, policy)
            contributors = [i for i in range(count) if samples[i]]
            made += [
                msgspec.msgpack.encode(terms),
                msgspec.msgpack.encode(weights_in(terms.weights, new, contributors, policy)),
            ]
    return made


def _step_limits(rules: RuleSet) -> list[bytes]:
    return [
        msgspec.msgpack.encode((energies(mean).tolist(), *limit_step(energy, usual)))
        for mean in _vectors(20, 2)
        for energy in (0.0, 5000.0, 1e60)
        for usual in (0.0, 1e-3, 40.0)
    ]


# The outer rules under which the pins were recorded.
PINNED_OUTER = Outer(learning_rate=0.7, momentum=0.9)

PARTS: dict[str, Callable[[RuleSet], list[bytes]]] = {
    "group choice": _choice,
    "slices": _shares,
    "layout": _layouts,
    "leaders": _leaders,
    "sums": _sums,
    "steps": _steps,
    "round length": _lengths,
    "schedules": _schedules,
}

# What rules 4 compute beside that.
TRUST_PARTS: dict[str, Callable[[RuleSet], list[bytes]]] = {
    "clipped sums": _clipped_sums,
    "terms": _terms,
    "step limits": _step_limits,
}

_TWO = {
    "group choice": "4c02d44689d9cb4900844cf346b839cb",
    "slices": "734b7c4995a6f89e4a0c31e1a5735f56",
    "layout": "e9bcf36b8801107f729f29e5ebe57bb9",
    "leaders": "b125728cd33271193c1a2ea4d5ba9725",
    "sums": "b6fd02a7af473b98528baa5c75c32328",
    "steps": "fc67c95c0c42b84c22a021cbb142a730",
    "round length": "eef5cb560cfcee5860061293535ec20b",
    "schedules": "466f54f00ae45faad9c0ddcde1cb8638",
}

_THREE = {**_TWO, "round length": "48704c955912e82aa9ec59b9257a78b0"}

# The first version has only what a reader of its certificates and proofs needs.
PINS: dict[int, dict[str, str]] = {
    FIRST_RULES: {part: _TWO[part] for part in ("slices", "layout")},
    RULES_2: _TWO,
    RULES_3: _THREE,
    # Not released yet.
    RULES_4: {
        **_THREE,
        "clipped sums": "3044025a0425de2dccbfd2bf340db9b7",
        "terms": "caf25158e8b46e253d50054e0b231ce3",
        "step limits": "fab45468fb1167eee8cfaa15c06b1673",
    },
}


def test_every_version_is_pinned() -> None:
    assert PINS.keys() == RULE_SETS.keys()
    for version in KNOWN_RULES:
        parts = PARTS | TRUST_PARTS if version >= RULES_4 else PARTS
        assert PINS[version].keys() == parts.keys()


@pytest.mark.parametrize(
    ("version", "part"), [(version, part) for version, pinned in PINS.items() for part in pinned]
)
def test_a_version_computes_what_it_did(version: int, part: str) -> None:
    found = digest(*(PARTS | TRUST_PARTS)[part](RULE_SETS[version])).hex()[:32]
    assert found == PINS[version][part], (
        f'rules {version} have another {part} than they had; its pin would be "{found}"'
    )
