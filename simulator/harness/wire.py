"""What a member and its harness say to each other: one JSON object a line, lines from the member
stamped with the machine's monotonic clock.

CLOCK_MONOTONIC is one clock for all processes of a machine, so times of different members can be
subtracted from each other.
"""

from __future__ import annotations

import msgspec

from protocol.identity import PeerId
from simulator.harness.steps import Kind, Step

MAX_LINE_BYTES = 1 << 20  # a certificate of 64 members has 25 KB


class MemberLine(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of what a member says. `at_s` is CLOCK_MONOTONIC."""

    at_s: float


class MemberUp(MemberLine, frozen=True, kw_only=True, tag=True):
    """It listens; others join it at `address`."""

    peer: PeerId
    address: str


class Resumed(MemberLine, frozen=True, kw_only=True, tag=True):
    """Its state is in place (of certificate `hash`, the run id at genesis), the ledger as it came
    from disk: `vectors` is the digest of what it holds, `offered_seq` 0 when nothing is on
    offer, `given` whether that may have been given out.
    """

    number: int
    hash: str
    weight: int
    offered_seq: int
    given: bool
    vectors: str


class Entered(MemberLine, frozen=True, kw_only=True, tag=True):
    """A phase of the round; `leads` is whether this member leads the view as far as it knows."""

    number: int
    view: int
    phase: str
    reason: str
    leads: bool


class Summed(MemberLine, frozen=True, kw_only=True, tag=True):
    """Its own slice is summed."""

    number: int


class StretchCollected(MemberLine, frozen=True, kw_only=True, tag=True):
    """A stretch goes into the ledger."""

    life: int
    stretch: int
    samples: int


class Offered(MemberLine, frozen=True, kw_only=True, tag=True):
    """What is in the ledger is offered; `contribution` is the root that the signed offer commits
    to.
    """

    number: int
    seq: int
    samples: int
    contribution: str


class Certified(MemberLine, frozen=True, kw_only=True, tag=True):
    """A certificate joined its ancestry.

    `state` is the digest of the anchor and momentum as the member holds them, empty for
    certificates passed on the way to a later one. `seconds` is how long its phases took.
    """

    number: int
    hash: str
    state: str
    seconds: dict[str, float]
    raw: bytes


class PeerLost(MemberLine, frozen=True, kw_only=True, tag=True):
    """The connection to a peer is gone."""

    peer: PeerId
    reason: str


class Passed(MemberLine, frozen=True, kw_only=True, tag=True):
    """A view came to nothing."""

    number: int
    view: int
    reason: str


class StrikeReport(MemberLine, frozen=True, kw_only=True, tag=True):
    """The last thing it says before the signal; `late_s` is how far into the step."""

    kind: Kind
    step: Step
    number: int
    leads: bool
    late_s: float


class Dumped(MemberLine, frozen=True, kw_only=True, tag=True):
    """The anchor and the momentum behind it are at `path`, little-endian float32, as of certificate
    `hash` (the run id at genesis).
    """

    number: int
    hash: str
    path: str


class Remark(MemberLine, frozen=True, kw_only=True, tag=True):
    """Anything a person may want to read afterwards."""

    text: str


AnyLine = (
    MemberUp
    | Resumed
    | Entered
    | Summed
    | StretchCollected
    | Offered
    | Certified
    | PeerLost
    | Passed
    | StrikeReport
    | Dumped
    | Remark
)


class Strike(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To a member: send yourself the signal the first time you come to `step` in round `number` or
    later, `after_s` into it.

    A step that is over sooner is struck at its end, before anything of the next one has left the
    member.
    """

    kind: Kind
    step: Step
    number: int
    after_s: float = 0.0


class Dump(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """To a member: write your anchor to `path`, now, or (`number` above 0) when you come to hold
    certificate `number` or a later one.
    """

    path: str
    number: int = 0


AnyCommand = Strike | Dump

_encoder = msgspec.json.Encoder()
_lines: msgspec.json.Decoder[AnyLine] = msgspec.json.Decoder(AnyLine)
_commands: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)


def encode(item: AnyLine | AnyCommand) -> bytes:
    """One line, with its end."""
    return _encoder.encode(item) + b"\n"


def decode_line(data: bytes) -> AnyLine:
    """Raises `msgspec.DecodeError`."""
    return _lines.decode(data)


def decode_command(data: bytes) -> AnyCommand:
    """Raises `msgspec.DecodeError`. `dump PATH` is understood too, for a person at the keyboard."""
    if data.startswith(b"dump "):
        return Dump(path=data[5:].strip().decode())
    return _commands.decode(data)
