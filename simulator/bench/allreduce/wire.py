"""What the conductor and a peer say to each other: one JSON object a line, commands on the peer's
standard input, answers on its output.
"""

from __future__ import annotations

import msgspec


class PeerLine(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Base of all lines."""


class PeerListens(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """The peer is up; `info` is what the others need to find it."""

    info: str


class MeetPeers(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """What all peers said in `PeerListens`, in order. Answered with `Acknowledged`."""

    infos: tuple[str, ...]


class PrepareRound(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Get ready for a round, up to where only the averaging is left. Answered with `Acknowledged`."""

    number: int


class StartRound(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Average, beginning at this moment of the machine's monotonic clock. Answered with `RoundDone`."""

    at_s: float


class Acknowledged(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Done as asked."""


class RoundDone(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """`failure` says why there is no result. `grouped`: whether the peers had found each other."""

    began_s: float
    ended_s: float
    failure: str = ""
    grouped: bool = True


class CheckMean(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Hold the round's result against the exact mean. Answered with `MeanChecked`."""


class MeanChecked(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """`max_error` is the greatest distance to the exact mean, None where a result is not a number
    (JSON has none of those); `result` a digest of all bytes.
    """

    max_error: float | None
    result: str


Command = MeetPeers | PrepareRound | StartRound | CheckMean
Answer = PeerListens | Acknowledged | RoundDone | MeanChecked
_encoder = msgspec.json.Encoder()
_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def encode(line: PeerLine) -> bytes:
    return _encoder.encode(line) + b"\n"


def decode_command(line: bytes) -> Command:
    return _commands.decode(line)


def decode_answer(line: bytes) -> Answer:
    return _answers.decode(line)
