"""What a stage announces about itself, and what a node knows of the stages of one model.

Nodes ask each other every few seconds for the announcements that they know. An announcement travels
with its age, because nodes have no common clock. A stage that stops leaves no word: its
announcement grows old.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, verify
from protocol.inference.layers import LayerRange
from protocol.inference.model import KernelId
from protocol.messages.base import UNREADABLE, Hash, Natural, Signature, Text

ANNOUNCEMENT_LIFE_S = 20.0
"""How long an announcement counts: a stage makes a new one every two seconds, and it may pass
through a few nodes that ask each other as often."""

MAX_STAGES = 256
"""The most stages of one model that a node remembers.

Beyond them, the peer that brought most announcements loses the oldest of these. A peer can make any
number of keys, and must not push out the stages that others bring.
"""

LEAST_LAYER_TOKENS_PER_S = 1e-3
"""The slowest stage that counts: it takes a quarter of an hour for one token in one layer.

A route adds up the times of stages, and a speed near 0 would make them infinite.
"""

MAX_ANNOUNCEMENT_BYTES = 1024
_DOMAIN = b"hypergpu/stage/1\0"


class StageAnnouncement(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """One stage: what it serves, how fast, and how much room it has."""

    model: Hash
    # A newer announcement of a peer has a greater serial.
    serial: Natural
    name: Text
    layers: LayerRange
    kernel: KernelId
    # Tokens x layers in a second, one token at a time.
    layer_tokens_per_s: Annotated[float, Meta(ge=LEAST_LAYER_TOKENS_PER_S, le=1e15)]
    cache_tokens_free: Natural


class SignedAnnouncement(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """An announcement as it travels."""

    payload: Annotated[bytes, Meta(max_length=MAX_ANNOUNCEMENT_BYTES)]
    peer: Annotated[PeerId, Meta(max_length=60)]
    signature: Signature

    def open(self) -> StageAnnouncement:
        """Verify and decode.

        Raises:
            PeerFault: "unsigned", "identity" or "malformed".
        """
        if not verify(self.peer, self.signature, _DOMAIN + self.payload):
            raise PeerFault("unsigned", "a stage's announcement with another signature")
        try:
            return msgspec.msgpack.decode(self.payload, type=StageAnnouncement)
        except UNREADABLE as error:
            raise PeerFault("malformed", f"not an announcement of a stage: {error}") from None


class HeardStage(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """An announcement, and how long ago its stage made it, as far as its bringer knows."""

    signed: SignedAnnouncement
    age_s: Annotated[float, Meta(ge=0, le=1e9)]


class KnownStage(msgspec.Struct, frozen=True, kw_only=True):
    """An opened announcement in the directory. `made_s` is on this node's clock."""

    peer: PeerId
    stage: StageAnnouncement
    signed: SignedAnnouncement
    made_s: float
    # Who brought the announcement; "" where that is not known.
    bringer: PeerId = ""


def announce_stage(stage: StageAnnouncement, signer: Signer) -> SignedAnnouncement:
    """Sign an announcement."""
    payload = msgspec.msgpack.encode(stage)
    return SignedAnnouncement(
        payload=payload, peer=signer.peer, signature=signer.sign(_DOMAIN + payload)
    )


class StageDirectory:
    """The stages of one model that a node knows."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self._stages: dict[PeerId, KnownStage] = {}
        # The last serial of a stage that broke; only a greater one brings the stage back.
        self._lost: dict[PeerId, int] = {}

    def hear(self, heard: HeardStage, now_s: float, bringer: PeerId = "") -> bool:
        """Take an announcement in that `bringer` has sent. Returns whether it is news.

        Raises:
            PeerFault: it is not signed by its stage, is malformed, or is of another model.
        """
        before = self._stages.get(heard.signed.peer)
        if before is not None and before.signed == heard.signed:
            return False
        if heard.age_s > ANNOUNCEMENT_LIFE_S:
            return False
        stage = heard.signed.open()
        if stage.model != self.model:
            raise PeerFault("malformed", "an announcement of another model")
        known = max(before.stage.serial if before else -1, self._lost.get(heard.signed.peer, -1))
        if stage.serial <= known:
            return False
        self._lost.pop(heard.signed.peer, None)
        self._stages[heard.signed.peer] = KnownStage(
            peer=heard.signed.peer,
            stage=stage,
            signed=heard.signed,
            made_s=now_s - heard.age_s,
            bringer=bringer,
        )
        if len(self._stages) > MAX_STAGES:
            brought = Counter(known.bringer for known in self._stages.values())
            oldest = min(
                self._stages.values(), key=lambda known: (-brought[known.bringer], known.made_s)
            )
            del self._stages[oldest.peer]
        return True

    def lose(self, peer: PeerId) -> None:
        """Forget a stage that broke, until it announces itself again."""
        known = self._stages.pop(peer, None)
        if known is not None:
            if len(self._lost) >= MAX_STAGES:
                del self._lost[next(iter(self._lost))]
            self._lost[peer] = known.stage.serial

    def mark_full(self, peer: PeerId) -> None:
        """Note that a stage had no room, until it announces itself again."""
        known = self._stages.get(peer)
        if known is not None:
            stage = msgspec.structs.replace(known.stage, cache_tokens_free=0)
            self._stages[peer] = msgspec.structs.replace(known, stage=stage)

    def stages(self, now_s: float) -> list[KnownStage]:
        """Return the stages whose announcement is not too old, by peer."""
        fresh = [
            known for known in self._stages.values() if now_s - known.made_s <= ANNOUNCEMENT_LIFE_S
        ]
        return sorted(fresh, key=lambda known: known.peer)

    def heard(self, now_s: float) -> tuple[HeardStage, ...]:
        """Return what this node passes on."""
        return tuple(
            HeardStage(signed=known.signed, age_s=max(0.0, now_s - known.made_s))
            for known in self.stages(now_s)
        )

    def hear_all(self, heard: Iterable[HeardStage], now_s: float) -> int:
        """Take announcements in; returns how many are news. Raises as `hear`."""
        return sum(self.hear(one, now_s) for one in heard)
