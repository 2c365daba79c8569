"""What is audited: shipped tasks, codecs, and the circumstances of their members."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from protocol.run.manifest import Inner, Outer


class AuditCase(msgspec.Struct, frozen=True, kw_only=True):
    """One task and codec, and what happens to its members.

    `fetched` is the share of each contribution that the auditor sees. Each member makes `steps`
    steps in a round, times its factor in `speeds`, and `exchange_steps` more while the round is
    exchanged. It misses a certificate with probability `misses`, and its node restarts with
    probability `restarts`. The last `poisoners` members turn the others' work round, as long as the
    clip allows.
    """

    name: str
    task: str
    options: dict[str, int | float | str | bool]
    inner: Inner
    codec: str
    outer: Outer = Outer()
    steps: int = 64
    exchange_steps: int = 6
    speeds: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    policy: str = "open"
    misses: float = 0.08
    restarts: float = 0.02
    poisoners: int = 0
    rounds: int = 12
    fetched: float = 1.0


# Small, so that hundreds of audits take minutes on one core.
_GPT: dict[str, int | float | str | bool] = {
    "layers": 2,
    "heads": 2,
    "width": 48,
    "context": 32,
    "corpus": "stdlib",
}
_WARM = Inner(batch_size=8, learning_rate=2e-3, warmup_samples=960)
# What a run with top-k should set (`protocol/codec/topk.py`).
_NO_MOMENTUM = Outer(learning_rate=1.0, momentum=0.0)


def shipped_cases(codecs: Sequence[str], rounds: int) -> list[AuditCase]:
    """The shipped tasks in these codecs, and the GPT with a quarter of each contribution."""
    cases: list[AuditCase] = []
    for codec in codecs:
        outer = _NO_MOMENTUM if codec == "topk" else Outer()
        gpt = AuditCase(
            name=f"byte_gpt {codec}",
            task="byte_gpt",
            options=_GPT,
            inner=_WARM,
            codec=codec,
            outer=outer,
            rounds=rounds,
        )
        cases += [
            gpt,
            replace(gpt, name=f"{gpt.name}, quarter", fetched=0.25),
            replace(gpt, name=f"{gpt.name}, uneven", speeds=(0.25, 0.5, 1.0, 2.0), steps=48),
            replace(
                gpt,
                name=f"{gpt.name}, 3 poisoners",
                speeds=(1.0,) * 8,
                poisoners=3,
                steps=24,
                rounds=max(1, rounds // 2),
            ),
            AuditCase(
                name=f"simple_cnn {codec}",
                task="simple_cnn",
                options={},
                inner=Inner(batch_size=8),
                steps=16,
                exchange_steps=2,
                codec=codec,
                outer=outer,
                rounds=rounds,
            ),
        ]
    return cases
