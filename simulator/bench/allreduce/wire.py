"""The protocol between the conductor and a peer: one JSON object per line.

Commands are on the peer's standard input, answers on its output.
"""

from __future__ import annotations

import msgspec


class PeerLine(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """The base of all lines."""


class PeerListens(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Answer: the peer is up. `info` is what the others need to find it."""

    info: str


class MeetPeers(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Command: meet the peers that `infos` names in order. The answer is `Acknowledged`."""

    infos: tuple[str, ...]


class PrepareRound(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Command: prepare a round up to its averaging. The answer is `Acknowledged`."""

    number: int


class StartRound(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Command: average, starting at this moment of the monotonic clock.

    The answer is `RoundDone`.
    """

    at_s: float


class Acknowledged(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Answer: done as asked."""


class RoundDone(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Answer: the round is over.

    `failure` says why there is no result. `grouped` says whether the peers found each other.
    """

    began_s: float
    ended_s: float
    failure: str = ""
    grouped: bool = True


class CheckMean(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Command: compare the round's result with the exact mean. The answer is `MeanChecked`."""


class MeanChecked(PeerLine, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Answer: the result's error and digest.

    `max_error` is the greatest distance to the exact mean. It is None where a result is not a
    number, which JSON lacks. `result` is a digest of all bytes.
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
