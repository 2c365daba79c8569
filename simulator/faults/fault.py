"""Faults as data: what goes wrong in a world, to whom and when.

A schedule of them can be written to a file, shrunk and played again.

A fault is placed at a time (`at_s`, virtual seconds from the start) or at a step of the protocol
(`when`): `FaultTrigger(node=3, enters="reduce")` is the first moment at which node 3 enters that phase.
`node=WHOEVER` is the node that came to that step. What lasts ends after `for_s`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

WHOEVER = -1
"""As a fault's node: the one whose step it was placed at."""

STEPS = ("train", "offer", "ready", "scatter", "reduce", "vote", "watch", "merge", "adopt", "fetch")
"""Where a fault can be placed: the values of `protocol.round.phase.Phase`. The cut comes between scatter and reduce; gathering ends reduce."""

ROLES = ("any", "leader", "member")

Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Node = Annotated[int, Meta(ge=WHOEVER)]


class FaultTrigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step of the protocol: the first time that a node (any, where `node` is None) of that role
    enters that phase, and `after_s` later.

    `after_s` 0 is before anything of that step has left the node. `number` narrows it to the round
    that would make that certificate.
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
    """Base of all faults. Exactly one of `at_s` and `when` is given."""

    at_s: Seconds | None = None
    when: FaultTrigger | None = None

    def __post_init__(self) -> None:
        if (self.at_s is None) == (self.when is None):
            raise ValueError(f"{type(self).__name__} needs either at_s or when")


class Kill(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """kill -9. Started again from its disk after `back_s`, where that is given."""

    node: Node
    back_s: Seconds | None = None


class Start(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A node begins a life: it joins, or comes back with its disk.

    Nothing happens when it is alive.
    """

    node: Node


class LeaveFault(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="Leave"):
    """The node is asked to stop in order."""

    node: Node


class Partition(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Nothing passes between the groups; whoever is in none of them is with the others in none."""

    groups: tuple[tuple[int, ...], ...]
    for_s: Seconds


class Sever(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Two nodes do not hear each other; everybody else hears both."""

    node: Node
    other: Node
    for_s: Seconds


class Pause(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """SIGSTOP, a closed lid: nothing enters or leaves the node."""

    node: Node
    for_s: Seconds


class Straggle(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The node trains at `speed` times its pace, and all its paths carry `bits_per_second` where
    that is given.
    """

    node: Node
    speed: Share = 0.1
    bits_per_second: Annotated[float, Meta(gt=0)] | None = None
    for_s: Seconds


class Lose(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A share of what the node says (messages and gossip, not bulk bytes) never arrives."""

    node: Node
    share: Share
    for_s: Seconds


class Duplicate(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A share of what the node says arrives twice."""

    node: Node
    share: Share
    for_s: Seconds


class Reorder(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A share of what the node says is overtaken by what it says next; all of it is up to `late_s`
    late.
    """

    node: Node
    share: Share
    late_s: Seconds = 0.0
    for_s: Seconds


class Corrupt(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """A share of what the node says or sends has a bit turned before it is sealed: a broken
    machine.

    (Links detect what they do themselves.)
    """

    node: Node
    share: Share
    for_s: Seconds


class SkewClock(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The node's wall clock is set forward or back by `by_s`."""

    node: Node
    by_s: float


class Shift(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The node's training of this round ends `by_s` later than the others', or earlier where that
    is negative: it is out of phase.

    Nothing else is wrong with it. Nothing happens to a node that does not train at that instant.
    """

    node: Node
    by_s: float


class CrashTrainer(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The worker dies alone."""

    node: Node


class Diverge(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The next stretch of training ends in values that are not finite."""

    node: Node


class FillDisk(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """Nothing more fits on the node's disk."""

    node: Node
    for_s: Seconds


class ByzantineBehavior(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The node says what is not so; `kind` is a name of `simulator.faults.liar.LIES`.

    For good, where `for_s` is None.
    """

    node: Node
    kind: str
    for_s: Seconds | None = None


AnyFault = (
    Kill
    | Start
    | LeaveFault
    | Partition
    | Sever
    | Pause
    | Straggle
    | Lose
    | Duplicate
    | Reorder
    | Corrupt
    | SkewClock
    | Shift
    | CrashTrainer
    | Diverge
    | FillDisk
    | ByzantineBehavior
)
Schedule = tuple[AnyFault, ...]


def lasts_s(fault: AnyFault) -> float:
    """For how long a fault goes on after it began; a node that is to come back is away for so long,
    a lie for good counts as over.
    """
    if isinstance(fault, Kill):
        return fault.back_s or 0.0
    return getattr(fault, "for_s", None) or 0.0


def describe(fault: AnyFault) -> str:
    """A line for a person."""
    where = f"at {fault.at_s:g} s" if fault.at_s is not None else ""
    if fault.when is not None:
        who = (
            f"node {fault.when.node}"
            if fault.when.node is not None
            else f"a {fault.when.role}"
            if fault.when.role != "any"
            else "anybody"
        )
        where = f"{fault.when.after_s:g} s after {who} enters {fault.when.enters}"
        where += f" of round {fault.when.number}" if fault.when.number is not None else ""
    fields = {
        name: getattr(fault, name)
        for name in fault.__struct_fields__
        if name not in ("at_s", "when")
    }
    said = ", ".join(
        f"{name} {'whoever' if value == WHOEVER else value}"
        for name, value in fields.items()
        if value is not None
    )
    return f"{where}: {type(fault).__name__} ({said})"
