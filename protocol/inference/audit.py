"""Audits of stages: whether two holders of the same layers computed the same.

Honest stages differ by what floating point leaves open: 8e-7 between one prefill and the decode
that it repeats. Weights in bfloat16 or int8 differ by 1e-2, int4 by 0.22, a skipped layer by 0.26.
The tolerance lies two orders of magnitude from both sides.

An audit compares results of a whole generation, so one figure covers every span of it.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.inference.activations import WireType
from protocol.inference.layers import LayerRange
from protocol.ports.stage import Activations

TOLERANCE: dict[WireType, float] = {"float32": 1e-4, "float16": 2e-3}
"""The largest relative difference of honest stages.

float16 rounds each value by up to 5e-4, on both sides and at each input.
"""

AUDIT_SHARE = 0.1
"""The share of generations that are audited.

One prefill costs a thirteenth of the decode, so audits cost less than 1% of the work.
"""

Verdict = Literal[
    # The results agree.
    "agrees",
    # They differ, and a third holder agrees with the auditor: the stage is wrong.
    "stage_wrong",
    # They differ, and a third holder agrees with the stage: the auditor is wrong.
    "auditor_wrong",
    # They differ, and no third holder decides.
    "disputed",
    # No other holder has the layers.
    "unaudited",
]


class StageAudited(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an audit of one hop."""

    peer: PeerId
    layers: LayerRange
    # "" where nobody audited.
    auditor: PeerId
    # The relative difference between the stage and the auditor.
    error: float
    verdict: Verdict

    @property
    def wrong(self) -> PeerId:
        """The peer whose results are wrong; "" where none is named."""
        if self.verdict == "stage_wrong":
            return self.peer
        return self.auditor if self.verdict == "auditor_wrong" else ""


def is_drawn(last: Digest, share: float) -> bool:
    """Whether a generation is audited.

    `last` is the digest of its last result, which no stage knows before it has computed all of it.
    """
    return int.from_bytes(last[:8], "big") < share * (1 << 64)


def difference(left: Activations, right: Activations) -> float:
    """Return |left - right| / |right|, with Euclidean norms over all values."""
    if left.shape != right.shape:
        return float("inf")
    norm = float(np.linalg.norm(right.astype(np.float64)))
    distance = float(np.linalg.norm(left.astype(np.float64) - right.astype(np.float64)))
    return distance / norm if norm else (0.0 if not distance else float("inf"))


def judge(
    stage: Activations, auditor: Activations, third: Activations | None, wire: WireType
) -> tuple[float, Verdict]:
    """Compare a stage's results with those of one or two other holders.

    Returns:
        The difference between the stage and the auditor, and the verdict.
    """
    tolerance = TOLERANCE[wire]
    error = difference(stage, auditor)
    if error <= tolerance:
        return error, "agrees"
    if third is not None:
        if difference(auditor, third) <= tolerance:
            return error, "stage_wrong"
        if difference(stage, third) <= tolerance:
            return error, "auditor_wrong"
    return error, "disputed"
