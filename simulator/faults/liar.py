"""`Liar`: intercepts what an honest node sends, and may change and sign it.

The base lets everything through. `simulator/faults/lies.py` says what each lie changes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import ClassVar

import msgspec
import numpy as np
from msgspec.structs import replace

from daemon.services.training.native.exchange.bulk_headers import (
    BulkHeader,
    GroupSumHeader,
    ResultHeader,
    ResultPieceHeader,
    ResultProofHeader,
    SliceHeader,
    read_header,
)
from daemon.swarm.frames import LENGTH_BYTES, frame
from daemon.swarm.lineage import Lineage
from protocol.averaging.vector_layout import Vector
from protocol.certificates.tip import Tip
from protocol.codec import chunk_bytes, codec_named
from protocol.digest import Digest, leaves_of, merkle_root
from protocol.identity import PeerId, Signer
from protocol.messages.base import Message, Signed
from protocol.messages.envelope import (
    AnyMessage,
    decode_signed,
    encode_signed,
    open_as,
    open_signed,
    sign,
)
from protocol.messages.round import SliceResult
from protocol.ports.trainer import Work
from protocol.rules.versions import RULES_2
from protocol.run.manifest import Manifest


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What a liar knows of its world besides what it sends."""

    # The tip of its node, and its node's lineage; None before the node has begun.
    tip: Callable[[], Tip | None]
    lineage: Callable[[], Lineage | None]
    # The keys of all nodes that tell the same lie, by index.
    accomplices: Callable[[], tuple[Signer, ...]]
    # What the other nodes offered last, decoded.
    offers: Callable[[], tuple[Vector, ...]]
    # Of the run's model.
    chunks: int


NOWHERE = Situation(
    tip=lambda: None,
    lineage=lambda: None,
    accomplices=lambda: (),
    offers=lambda: (),
    chunks=1,
)
"""The situation of a liar that nobody has told anything."""


class Liar:
    """Honest in everything. A lie overrides what it changes."""

    # Whether certificates are wrong until the liar is caught.
    wrong_sums: ClassVar[bool] = False
    # Why nobody can name the liar, and what could; empty for lies that are refused.
    unnoticed: ClassVar[str] = ""
    # The first version of the rules that withstands the lie.
    least_rules: ClassVar[int] = RULES_2

    def __init__(self, signer: Signer, run: Digest, manifest: Manifest, rng: random.Random) -> None:
        self.signer, self.run, self.manifest, self.rng = signer, run, manifest, rng
        self.codec = codec_named(manifest.codec)
        self.situation = NOWHERE
        # By (receiver, slice): the pieces of a result so far.
        self._collected: dict[tuple[PeerId, int], bytes] = {}

    # ---------------------------------------------------------------- what is sent

    def message(self, to: PeerId, data: bytes) -> list[bytes]:
        """The frames to send instead of this one."""
        signed = decode_signed(data[LENGTH_BYTES:])
        if signed.peer != self.signer.peer:
            # The frame forwards another peer's message.
            return [data]
        return self.said(to, signed, open_signed(signed, self.run, trusted=True))

    def said(self, to: PeerId, signed: Signed, message: AnyMessage) -> list[bytes]:
        return [self.framed(self.change(to, message), signed)]

    def change(self, to: PeerId, message: AnyMessage) -> Message:
        """The message that is signed instead."""
        return message

    def gossip(self, topic: str, data: bytes) -> list[bytes]:
        return [data]

    def spreads(self, topic: str) -> list[tuple[str, bytes]]:
        """What to publish as well, as (topic, message), when this node publishes on a topic."""
        return []

    def work(self, work: Work) -> Work:
        """The work that the trainer hands over instead of its own."""
        return work

    def excludes(self, peer: PeerId) -> str:
        """Why the node leaves a peer out of the plans that it leads; "" where it does not."""
        return ""

    def opinions(self) -> Mapping[PeerId, bool] | None:
        """For or against whom the node speaks; None where it says what it found."""
        return None

    def parcel(self, to: PeerId, header: bytes, payload: bytes) -> list[tuple[bytes, bytes]]:
        """The framed headers and payloads to send instead of these.

        A liar that changes results collects their pieces, and sends a whole result in their place.
        """
        read = read_header(header[LENGTH_BYTES:])
        changed: tuple[BulkHeader, bytes]
        if type(self).result is not Liar.result:
            match read:
                case ResultPieceHeader():
                    self._collected[to, read.slice] = (
                        self._collected.get((to, read.slice), b"")[: read.start] + payload
                    )
                    return []
                case ResultProofHeader():
                    index = open_as(SliceResult, read.result, self.run, trusted=True).slice
                    payload = self._collected.pop((to, index), b"")
                    read = ResultHeader(result=read.result, size=len(payload))
        match read:
            case ResultPieceHeader() | ResultProofHeader():
                return [(header, payload)]
            case SliceHeader():
                changed = self.slice(to, read, payload)
            case GroupSumHeader():
                changed = self.row(to, read, payload)
            case ResultHeader() if read.result.peer == self.signer.peer:
                changed = self.result(to, read, payload)
            case ResultHeader():
                changed = self.handed_on(to, read, payload)
        return [(frame(msgspec.msgpack.encode(changed[0])), changed[1])]

    def slice(self, to: PeerId, header: SliceHeader, payload: bytes) -> tuple[SliceHeader, bytes]:
        return header, payload

    def result(
        self, to: PeerId, header: ResultHeader, payload: bytes
    ) -> tuple[ResultHeader, bytes]:
        return header, payload

    def row(
        self, to: PeerId, header: GroupSumHeader, payload: bytes
    ) -> tuple[GroupSumHeader, bytes]:
        """Change the sum that it made of its group."""
        return header, payload

    def handed_on(
        self, to: PeerId, header: ResultHeader, payload: bytes
    ) -> tuple[ResultHeader, bytes]:
        """Change another's result, on its way to the liar's group."""
        return header, payload

    def answer(self, data: bytes) -> bytes:
        """Change a piece of the state that this node serves."""
        return data

    # ---------------------------------------------------------------- for the lies

    def framed(self, message: Message, original: Signed | None = None) -> bytes:
        signed = sign(self.signer, self.run, message)
        return frame(
            encode_signed(
                original if original is not None and original.payload == signed.payload else signed
            )
        )

    def shifted(self, payload: bytes) -> bytes:
        """The same encoding with every value one larger."""
        values = np.empty(len(payload) // self.codec.size(1), np.float32)
        self.codec.decode(payload, values)
        return self.codec.encode(values + np.float32(1.0))

    def signed_result(self, header: ResultHeader, payload: bytes) -> ResultHeader:
        """The header that fits another payload."""
        result = open_as(SliceResult, header.result, self.run, trusted=True)
        root = merkle_root(leaves_of(payload, chunk_bytes(self.codec)))
        return ResultHeader(
            result=sign(self.signer, self.run, replace(result, root=root)), size=len(payload)
        )
