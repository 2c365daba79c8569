"""The protocol between a member and its harness: one JSON object per line.

A member's lines have the time of CLOCK_MONOTONIC. That is one clock for all processes of a machine,
so times of different members can be subtracted.
"""

from __future__ import annotations

import msgspec

from protocol.identity import PeerId
from simulator.harness.steps import Kind, Step

# A certificate of 64 members has 25 KB.
MAX_LINE_BYTES = 1 << 20


class MemberLine(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The base of a member's lines. `at_s` is CLOCK_MONOTONIC."""

    at_s: float


class MemberUp(MemberLine, frozen=True, kw_only=True, tag=True):
    """The member listens. Others join it at `address`."""

    peer: PeerId
    address: str


class Resumed(MemberLine, frozen=True, kw_only=True, tag=True):
    """The member's state is in place, and its ledger as it came from disk.

    `hash` is the certificate, the run id at genesis. `vectors` is the digest of the ledger's
    content. `offered_seq` is 0 without an offer. `given` says whether the offer may have been sent.
    `next_seq` is the seq of the member's next offer.
    """

    number: int
    hash: str
    weight: int
    offered_seq: int
    next_seq: int
    given: bool
    vectors: str


class Entered(MemberLine, frozen=True, kw_only=True, tag=True):
    """The member entered a phase. `leads` says whether it leads the view as far as it knows."""

    number: int
    view: int
    phase: str
    reason: str
    leads: bool


class Summed(MemberLine, frozen=True, kw_only=True, tag=True):
    """The member has summed its own slice."""

    number: int


class StretchCollected(MemberLine, frozen=True, kw_only=True, tag=True):
    """A stretch goes into the ledger."""

    life: int
    stretch: int
    samples: int


class Offered(MemberLine, frozen=True, kw_only=True, tag=True):
    """The ledger is offered. `contribution` is the root that the signed offer commits to."""

    number: int
    seq: int
    samples: int
    contribution: str


class Certified(MemberLine, frozen=True, kw_only=True, tag=True):
    """A certificate joined the member's ancestry.

    `state` is the digest of the anchor and momentum that the member holds. It is empty for
    certificates passed on the way to a later one. `seconds` is how long the phases took.
    """

    number: int
    hash: str
    state: str
    seconds: dict[str, float]
    raw: bytes


class LinkLost(MemberLine, frozen=True, kw_only=True, tag=True):
    """The connection to a peer is gone."""

    peer: PeerId
    reason: str


class Passed(MemberLine, frozen=True, kw_only=True, tag=True):
    """A view failed."""

    number: int
    view: int
    reason: str


class StrikeReport(MemberLine, frozen=True, kw_only=True, tag=True):
    """The member's last line before the signal. `late_s` is how far into the step it is."""

    kind: Kind
    step: Step
    number: int
    leads: bool
    late_s: float


class Dumped(MemberLine, frozen=True, kw_only=True, tag=True):
    """The anchor and the momentum behind it are at `path`, in little-endian float32.

    `hash` is the certificate, the run id at genesis.
    """

    number: int
    hash: str
    path: str


class Remark(MemberLine, frozen=True, kw_only=True, tag=True):
    """Anything that a person may want to read afterwards."""

    text: str


AnyLine = (
    MemberUp
    | Resumed
    | Entered
    | Summed
    | StretchCollected
    | Offered
    | Certified
    | LinkLost
    | Passed
    | StrikeReport
    | Dumped
    | Remark
)


class Strike(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Command: send yourself the signal at `step` of round `number` or later, `after_s` into it.

    A step that ends sooner is struck at its end, before anything of the next step has left the
    member.
    """

    kind: Kind
    step: Step
    number: int
    after_s: float = 0.0


class Dump(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Command: write the anchor to `path`.

    The member does it now, or with `number` above 0 when it holds that certificate or a later one.
    """

    path: str
    number: int = 0


AnyCommand = Strike | Dump

_encoder = msgspec.json.Encoder()
_lines: msgspec.json.Decoder[AnyLine] = msgspec.json.Decoder(AnyLine)
_commands: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)


def encode(item: AnyLine | AnyCommand) -> bytes:
    """One line with its line feed."""
    return _encoder.encode(item) + b"\n"


def decode_line(data: bytes) -> AnyLine:
    """Decode a member's line. Raises `msgspec.DecodeError`."""
    return _lines.decode(data)


def decode_command(data: bytes) -> AnyCommand:
    """Decode a command. Raises `msgspec.DecodeError`.

    `dump PATH` is accepted too, for a person at the keyboard.
    """
    if data.startswith(b"dump "):
        return Dump(path=data[5:].strip().decode())
    return _commands.decode(data)
