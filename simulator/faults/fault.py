"""Faults as data: what goes wrong in a world, for which node and when.

A schedule of faults can be written to a file, shrunk and played again.

A fault is placed at a time (`at_s`, virtual seconds from the start) or at a step of the protocol
(`when`). `FaultTrigger(node=3, enters="reduce")` is the first moment at which node 3 enters that
phase. `node=NODE_AT_STEP` is the node that reached the step. A lasting fault ends after `for_s`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

NODE_AT_STEP = -1
"""As a fault's node: the node that reached the step at which the fault was placed."""

STEPS = ("train", "offer", "ready", "scatter", "reduce", "vote", "watch", "merge", "adopt", "fetch")
"""Where a fault can be placed: the values of `protocol.round.phase.Phase`.

The inclusion comes between scatter and reduce, and gathering ends reduce.
"""

ROLES = ("any", "leader", "member")

Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Node = Annotated[int, Meta(ge=NODE_AT_STEP)]


class FaultTrigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step of the protocol: the first time that a node of a role enters a phase.

    `node` None is any node. The fault strikes `after_s` later; 0 is before anything of that step
    has left the node. `number` limits the trigger to the round that would make that certificate.
    """

    enters: str
    node: int | None = None
    role: str = "any"
    number: int | None = None
    after_s: Seconds = 0.0

    def __post_init__(self) -> None:
        if self.enters not in STEPS or self.role not in ROLES:
            raise ValueError(f"no such step: {self.role} enters {self.enters}")


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The base of all faults. Exactly one of `at_s` and `when` is given."""

    at_s: Seconds | None = None
    when: FaultTrigger | None = None

    def __post_init__(self) -> None:
        if (self.at_s is None) == (self.when is None):
            raise ValueError(f"{type(self).__name__} needs either at_s or when")


class Kill(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Kill a node as `kill -9` does. With `back_s`, it restarts from its disk that much later."""

    node: Node
    back_s: Seconds | None = None


class PowerCut(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Every living node loses power at the same instant, and restarts from its disk.

    The first one is back after `back_s`, the last one `spread_s` later.
    """

    back_s: Seconds
    spread_s: Seconds = 0.0


class Start(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Begin a life of a node: it joins, or comes back with its disk.

    Nothing happens when the node is alive.
    """

    node: Node


class LeaveFault(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="Leave"):
    """Ask the node to stop in order. Its tag is that of the stories on disk."""

    node: Node


class Partition(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Nothing passes between the groups. Nodes in none of them form one more group."""

    groups: tuple[tuple[int, ...], ...]
    for_s: Seconds


class Sever(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Two nodes do not hear each other. Everybody else hears both."""

    node: Node
    other: Node
    for_s: Seconds


class Pause(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Pause a node as SIGSTOP or a closed lid does: nothing enters or leaves it."""

    node: Node
    for_s: Seconds


class Straggle(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The node trains at `speed` times its pace.

    With `rate_bps`, all its paths carry no more than that.
    """

    node: Node
    speed: Share = 0.1
    rate_bps: Annotated[float, Meta(gt=0)] | None = None
    for_s: Seconds


class SlowDownlink(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """What comes to the node shares `rate_bps`, in all its lives. What it sends is as fast as ever.

    So is the link of a home whose download another program uses.
    """

    node: Node
    rate_bps: Annotated[float, Meta(gt=0)]
    for_s: Seconds


class Lose(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A share of the node's messages and gossip never arrives. Bulk bytes are not affected."""

    node: Node
    share: Share
    for_s: Seconds


class Duplicate(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A share of the node's messages arrives twice."""

    node: Node
    share: Share
    for_s: Seconds


class Reorder(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A share of the node's messages is overtaken by the next one; each is up to `late_s` late."""

    node: Node
    share: Share
    late_s: Seconds = 0.0
    for_s: Seconds


class Corrupt(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A share of what the node sends has one bit flipped before it is sealed: a broken machine.

    Links detect their own damage.
    """

    node: Node
    share: Share
    for_s: Seconds


class SkewClock(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Set the node's wall clock forward or back by `by_s`."""

    node: Node
    by_s: float


class Shift(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The node's training ends `by_s` later than the others', or earlier where that is negative.

    The node is out of phase, and nothing else is wrong with it. A node that does not train at that
    instant is not affected.
    """

    node: Node
    by_s: float


class CrashTrainer(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The worker dies alone."""

    node: Node


class Diverge(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The next stretch of training ends in values that are not finite."""

    node: Node


class Poison(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The node's trainer hands over its work times `factor`, in this life: -1 is a sign flip."""

    node: Node
    factor: float


class FillDisk(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Nothing more fits on the node's disk."""

    node: Node
    for_s: Seconds


class ByzantineBehavior(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The node lies; `kind` is a name of `simulator.faults.lies.LIES`.

    It lies to the end where `for_s` is None. With `in_turn`, `node` counts the founders in the
    order in which they lead: neighbours lead one after the other.
    """

    node: Node
    kind: str
    in_turn: bool = False
    for_s: Seconds | None = None


AnyFault = (
    Kill
    | PowerCut
    | Start
    | LeaveFault
    | Partition
    | Sever
    | Pause
    | Straggle
    | SlowDownlink
    | Lose
    | Duplicate
    | Reorder
    | Corrupt
    | SkewClock
    | Shift
    | CrashTrainer
    | Diverge
    | Poison
    | FillDisk
    | ByzantineBehavior
)
Schedule = tuple[AnyFault, ...]


def lasts_s(fault: AnyFault) -> float:
    """How long a fault goes on after it began.

    A killed node that is to come back is away for that long. A lie without an end counts as over.
    """
    if isinstance(fault, Kill):
        return fault.back_s or 0.0
    if isinstance(fault, PowerCut):
        return fault.back_s + fault.spread_s
    return getattr(fault, "for_s", None) or 0.0
