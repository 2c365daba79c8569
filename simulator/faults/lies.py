"""The lies, each a small class over `Liar`, named in `LIES`.

`simulator/scenarios/liars.py` says how honest nodes answer each. They refuse and name nearly all;
the few others are marked `unnoticed` with what would detect them.
"""

from __future__ import annotations

import random

from msgspec.structs import replace

from daemon.swarm.frames import LENGTH_BYTES, frame
from protocol.digest import Digest
from protocol.identity import PeerId, Signer
from protocol.messages.base import Message, Signed
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import AnyMessage, decode_signed, encode_signed, open_as, sign
from protocol.messages.offer import Ready
from protocol.messages.round import Announce, HoldReport, Inclusion, Plan, Vote
from protocol.run.manifest import Manifest
from simulator.faults.data_lies import SplitSum, WrongBytes, WrongDigest, WrongSum
from simulator.faults.liar import Liar
from simulator.faults.round_lies import ROUND_LIES
from simulator.faults.trust_lies import TRUST_LIES
from simulator.faults.work_lies import WORK_LIES

# The length prefix announces a gigabyte.
TOO_LONG = (1 << 30).to_bytes(LENGTH_BYTES, "big") + b"\0" * 64


class Forge(Liar):
    """Changes its messages after they were signed."""

    def said(self, to: PeerId, signed: Signed, message: AnyMessage) -> list[bytes]:
        signature = bytes(byte ^ 1 for byte in signed.signature)
        return [frame(encode_signed(Signed(signed.payload, signed.peer, signature)))]


class Impersonate(Liar):
    """Sends messages in the name of their receiver."""

    def said(self, to: PeerId, signed: Signed, message: AnyMessage) -> list[bytes]:
        return [
            frame(encode_signed(Signed(signed.payload, to, signed.signature))),
            frame(encode_signed(signed)),
        ]


class Replay(Liar):
    """Sends its earlier messages again."""

    def __init__(self, signer: Signer, run: Digest, manifest: Manifest, rng: random.Random) -> None:
        super().__init__(signer, run, manifest, rng)
        self._said: list[bytes] = []

    def message(self, to: PeerId, data: bytes) -> list[bytes]:
        self._said = [*self._said[-8:], data]
        return [*self._said[:-1], data]


class Garbage(Liar):
    """Sends noise in place of messages."""

    def said(self, to: PeerId, signed: Signed, message: AnyMessage) -> list[bytes]:
        return [frame(self.rng.randbytes(200))]

    def gossip(self, topic: str, data: bytes) -> list[bytes]:
        return [self.rng.randbytes(300), data]


class Oversize(Liar):
    """Announces frames of a gigabyte."""

    def said(self, to: PeerId, signed: Signed, message: AnyMessage) -> list[bytes]:
        return [TOO_LONG]


class WrongVote(Liar):
    """Votes for a state that nobody computed."""

    def change(self, to: PeerId, message: AnyMessage) -> Message:
        return (
            replace(message, state=bytes(byte ^ 255 for byte in message.state))
            if isinstance(message, Vote)
            else message
        )


class DoubleVote(Liar):
    """Votes for two states in one view."""

    def said(self, to: PeerId, signed: Signed, message: AnyMessage) -> list[bytes]:
        frames = super().said(to, signed, message)
        if isinstance(message, Vote):
            frames.append(
                self.framed(replace(message, state=bytes(byte ^ 255 for byte in message.state)))
            )
        return frames


class TwoInclusions(Liar):
    """As leader, closes the set of contributors twice under one number."""

    def said(self, to: PeerId, signed: Signed, message: AnyMessage) -> list[bytes]:
        frames = super().said(to, signed, message)
        if isinstance(message, Inclusion):
            frames.append(self.framed(replace(message, reason=message.reason + "; or so")))
        return frames


class BadPlan(Liar):
    """As leader, divides the work unfairly."""

    def change(self, to: PeerId, message: AnyMessage) -> Message:
        if isinstance(message, Plan):
            return replace(message, borders=(*message.borders[:-1], message.borders[-1] + 1))
        return message


class Usurp(Liar):
    """Closes the sets of plans that it does not lead."""

    def said(self, to: PeerId, signed: Signed, message: AnyMessage) -> list[bytes]:
        frames = super().said(to, signed, message)
        if isinstance(message, HoldReport):
            everybody = (0, 1)
            cut = Inclusion(
                plan=message.plan,
                number=1,
                contributors=everybody,
                present=everybody,
                owners=everybody,
                reason="because",
            )
            frames.append(self.framed(cut))
        return frames


class Inflate(Liar):
    """Offers more samples than the run allows."""

    def change(self, to: PeerId, message: AnyMessage) -> Message:
        if isinstance(message, Ready) and message.samples:
            return replace(message, samples=self.manifest.limits.max_samples + 1)
        return message


class OldSeq(Liar):
    """Offers under a seq that was certified long ago."""

    def change(self, to: PeerId, message: AnyMessage) -> Message:
        return (
            replace(message, seq=1) if isinstance(message, Ready) and message.seq > 1 else message
        )


class FakeCertificate(Liar):
    """Spreads certificates that nobody voted for."""

    def said(self, to: PeerId, signed: Signed, message: AnyMessage) -> list[bytes]:
        frames = super().said(to, signed, message)
        if isinstance(message, Vote):
            frames.append(self.framed(Announce(certificate=self.rng.randbytes(500))))
        return frames

    def gossip(self, topic: str, data: bytes) -> list[bytes]:
        if not topic.endswith("certificates"):
            return [data]
        damaged = bytearray(data)
        damaged[-1] ^= 1
        return [bytes(damaged), data]


class FalseHoldReport(Liar):
    """Reports that it holds what it does not, and sends what it reduces to nobody."""

    unnoticed = (
        "it looks like a slow reducer: the leader counts it as lost when its results do not arrive"
    )

    def change(self, to: PeerId, message: AnyMessage) -> Message:
        return (
            replace(message, contributors=tuple(range(8)))
            if isinstance(message, HoldReport)
            else message
        )


class BadState(Liar):
    """Serves another anchor than the certified one."""

    def answer(self, data: bytes) -> bytes:
        return bytes(byte ^ 1 for byte in data) if len(data) > 1024 else data


class FalseHeight(Liar):
    """Claims to be a million rounds ahead."""

    unnoticed = (
        "beacons are self-reported; a peer that asks for the certificates gets none and asks "
        "the next peer"
    )

    def gossip(self, topic: str, data: bytes) -> list[bytes]:
        if not topic.endswith("beacons"):
            return [data]
        beacon = open_as(Beacon, decode_signed(data), self.run, trusted=True)
        return [
            encode_signed(
                sign(
                    self.signer,
                    self.run,
                    replace(beacon, number=beacon.number + 1_000_000, tip=self.rng.randbytes(32)),
                )
            )
        ]


LIES: dict[str, type[Liar]] = {
    "forge": Forge,
    "steal": Impersonate,
    "replay": Replay,
    "garbage": Garbage,
    "oversize": Oversize,
    "wrong_bytes": WrongBytes,
    "wrong_sum": WrongSum,
    "split_sum": SplitSum,
    "wrong_digest": WrongDigest,
    "wrong_vote": WrongVote,
    "double_vote": DoubleVote,
    "two_inclusions": TwoInclusions,
    "bad_plan": BadPlan,
    "usurp": Usurp,
    "inflate": Inflate,
    "old_seq": OldSeq,
    "fake_certificate": FakeCertificate,
    "false_hold_report": FalseHoldReport,
    "bad_state": BadState,
    "false_height": FalseHeight,
    **TRUST_LIES,
    **ROUND_LIES,
    **WORK_LIES,
}
