"""The parts of a manifest: the tables of a run's file, with their defaults and their limits."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from protocol.identity import PeerId

MAX_GROUP_LIMIT = 64
"""A certificate carries the offers of its members: 64 of them are about 25 KB of gossip."""

MAX_ROUND_SECONDS = 86400
"""A day. A longer round is none that anybody waits for."""

USUAL_MOMENTUM = {"sgd": 0.9, "muon": 0.95}
"""The values of most published recipes, and of torch's Muon."""

MAX_QUORUM_GRACE_S = 30 * 86400
"""A month. A run that waits longer for its voters is over."""

MAX_FOUNDERS = 32
"""A plan of 64 members holds every vote of a run and as many others."""

AdmissionPolicy = Literal["invite", "open", "registered", "allowlist"]
"""Who may take part. Only rules 4 and later have `invite`."""

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Samples = Annotated[int, Meta(ge=0, le=1 << 62)]

MIN_SECONDS = 2.0
"""The shortest round of a run that names none: 20 times the control of a round among four members.
"""


class ManifestPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the manifest's parts."""


class Inner(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trainer's own optimizer and its batch.

    `optimizer` is AdamW (https://arxiv.org/abs/1711.05101), SGD, or Muon for hidden matrices with
    AdamW for the rest (https://kellerjordan.github.io/posts/muon/). `momentum` and `nesterov`
    belong to SGD, and `momentum` to Muon. A step computes `accumulate` batches of `batch_size`
    samples, one after the other, and averages their gradients.

    The learning rate rises over the run's first `warmup_samples` and falls until `total_samples` to
    `final_factor` of `learning_rate` (`protocol/run/schedule.py`).
    """

    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    beta1: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1)] = 0.99
    batch_size: Annotated[int, Meta(ge=1, le=65536)] = 8
    clip_norm: Positive = 1.0
    warmup_samples: Samples = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    final_factor: Annotated[float, Meta(ge=0, le=1)] = 0.1
    total_samples: Samples = 0
    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    # None means the usual value of the optimizer.
    momentum: Annotated[float, Meta(ge=0, lt=1)] | None = None
    nesterov: bool = False
    accumulate: Annotated[int, Meta(ge=1, le=65536)] = 1

    def __post_init__(self) -> None:
        if self.momentum is not None and self.optimizer == "adamw":
            raise ValueError(
                'inner.momentum belongs to inner.optimizer = "sgd" or "muon"; AdamW has beta1'
            )
        if self.nesterov and (self.optimizer != "sgd" or not self.effective_momentum):
            raise ValueError('inner.nesterov needs inner.optimizer = "sgd" with a momentum')
        if self.decay != "constant" and self.total_samples <= self.warmup_samples:
            raise ValueError(
                f'inner.decay = "{self.decay}" needs inner.total_samples, the samples of the '
                f"whole run, above inner.warmup_samples {self.warmup_samples}; "
                f"it is {self.total_samples}"
            )

    @property
    def effective_momentum(self) -> float:
        """The momentum of SGD or Muon: the given one, or the usual one."""
        return USUAL_MOMENTUM.get(self.optimizer, 0.0) if self.momentum is None else self.momentum

    @property
    def step_samples(self) -> int:
        """The samples of one step."""
        return self.batch_size * self.accumulate


class Outer(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nesterov momentum on the averaged pseudo-gradient.

    The defaults are those of DiLoCo (https://arxiv.org/abs/2311.08105). The momentum rises to
    `momentum` over the run's first `momentum_warmup_samples` (`protocol/run/schedule.py`).
    """

    learning_rate: Positive = 0.7
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9
    momentum_warmup_samples: Samples = 0


class RoundRules(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a round ends, and how long each of its steps may take.

    A round takes between `min_seconds` and `seconds`. The certificates choose its length by how
    long the exchange takes (`protocol/planning/round_length.py`): as short as keeps the exchange
    below `exchange_share` of it. With `overlap`, members train on during the exchange.

    `steps` above 0 ends local training after that many steps instead of after `seconds`
    (synchronous, for comparisons). The deadlines are the cost of a crash that breaks no connection;
    nodes notice a lost connection at once.
    """

    seconds: Annotated[float, Meta(gt=0, le=MAX_ROUND_SECONDS)] = 60.0
    steps: Annotated[int, Meta(ge=0)] = 0
    ready_s: Positive = 3.0
    scatter_s: Positive = 20.0
    gather_s: Positive = 20.0
    vote_s: Positive = 5.0
    overlap: bool = True
    exchange_share: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    min_seconds: Annotated[float, Meta(gt=0, le=MAX_ROUND_SECONDS)] = MIN_SECONDS

    def __post_init__(self) -> None:
        if self.min_seconds > self.seconds:
            if self.min_seconds != MIN_SECONDS:
                raise ValueError(
                    f"round.min_seconds {self.min_seconds:g} is above "
                    f"round.seconds {self.seconds:g}"
                )
            # A run that names only the longest round may name a shorter one than the default.
            force_setattr(self, "min_seconds", self.seconds)

    @property
    def overlaps(self) -> bool:
        """Whether members train during the exchange. A run that counts steps waits for it."""
        return self.overlap and not self.steps


class Group(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many members certify and average.

    `min_peers` is the least number of members that may certify. The plan chooses group sizes
    between `min_group` and `max_group`.
    """

    min_peers: Annotated[int, Meta(ge=2, le=MAX_GROUP_LIMIT)] = 2
    min_group: Annotated[int, Meta(ge=2, le=MAX_GROUP_LIMIT)] = 2
    max_group: Annotated[int, Meta(ge=2, le=MAX_GROUP_LIMIT)] = 32


class Limits(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`max_samples` caps the weight of one offer, never its displacement.

    Work that no certificate counts waits. Each certificate without it halves it, and after
    `max_carry_rounds` consecutive ones it is dropped.
    """

    max_samples: Count = 1_000_000
    max_carry_rounds: Count = 3


class Admission(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may take part (`protocol/run/admission.py`). `min_reputation` is 0 to 1,000."""

    policy: AdmissionPolicy = "open"
    allowed: tuple[PeerId, ...] = ()
    min_reputation: Annotated[int, Meta(ge=0, le=1000)] = 0

    def __post_init__(self) -> None:
        if bool(self.allowed) != (self.policy == "allowlist"):
            raise ValueError(
                'admission.allowed must list peers if, and only if, policy = "allowlist"'
            )


class Trust(ManifestPart, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose votes certify, and which checks of work decide about strangers. Since rules 4.

    `quorum_grace_s` is how long a node waits for a full certificate before it signs or follows a
    degraded one; None is the longer of 120 s and two rounds. With `votes = "worked"`, strangers
    that worked long enough vote as well. With `audit = "none"`, because the data is private, a
    stranger becomes no member.
    """

    quorum_grace_s: Annotated[float, Meta(gt=0, le=MAX_QUORUM_GRACE_S)] | None = None
    votes: Literal["trusted", "worked"] = "trusted"
    audit: Literal["loss", "none"] = "loss"
