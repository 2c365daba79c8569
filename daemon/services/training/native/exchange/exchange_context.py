"""Defines what every exchange of a run shares: constant facts, and ports."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.bulk_sender import BulkSender
from protocol.averaging.group_layout import GroupLayout
from protocol.averaging.vector_layout import element_range
from protocol.codec import Codec
from protocol.contribution.commitment import Commitment, Merkle
from protocol.digest import Digest
from protocol.identity import PeerId, Signer
from protocol.messages.round import Inclusion
from protocol.ports.offload import Offload
from protocol.round.events import Event


class ExchangeContext(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that hold for every exchange of one node."""

    run: Digest
    signer: Signer
    codec: Codec
    parameters: int


class PartArrival(msgspec.Struct, frozen=True, kw_only=True):
    """A contributor's part for this node has arrived."""

    peer: PeerId
    # The bytes that the contributor had sent to all members by then.
    sent_to_all_bytes: int
    size_bytes: int
    # About how many bytes this node had received from all members by then.
    received_bytes: int
    # Seconds since the exchange of the plan began.
    seconds: float


def _ignore(arrival: PartArrival) -> None:
    """Do nothing with the arrival of a part."""


def _ignore_refusal(reason: str, peer: PeerId, detail: str) -> None:
    """Do nothing with a refusal."""


class ExchangePorts(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of an exchange."""

    sender: BulkSender
    buffers: Buffers
    offload: Offload
    # Hands an event to the round machine.
    emit: Callable[[Event], None]
    # Proves parts and results; a benchmark replaces it to measure its cost.
    commitment: Commitment = Merkle()
    on_part: Callable[[PartArrival], None] = _ignore
    # Counts a refusal by reason, peer and detail.
    refuse: Callable[[str, PeerId, str], None] = _ignore_refusal


class ClosedSet(msgspec.Struct, frozen=True, kw_only=True):
    """The leader's inclusion with the digest of its signed message."""

    inclusion: Inclusion
    digest: Digest


class SliceSizes:
    """The positions of a plan's slices and parts in the vector, and their sizes in bytes."""

    def __init__(self, layout: GroupLayout, codec: Codec, parameters: int) -> None:
        self._layout, self._codec, self._parameters = layout, codec, parameters

    def elements(self, index: int) -> tuple[int, int]:
        """Return the elements `[start, stop)` of a slice."""
        return element_range(*self._layout.slices[index], self._parameters)

    def result_bytes(self, index: int) -> int:
        """Return the size of the encoded mean of a slice."""
        start, stop = self.elements(index)
        return self._codec.result.size(stop - start)

    def part_elements(self, index: int) -> int:
        """Return the number of elements that member `index` sums over its group."""
        start, stop = element_range(*self._layout.parts[index], self._parameters)
        return stop - start

    def part_bytes(self, index: int) -> int:
        """Return the size of one contribution to the sum of member `index`."""
        return self._codec.size(self.part_elements(index))

    @property
    def largest_part_bytes(self) -> int:
        """The size of the largest part in float32: no sum of a group is larger."""
        return 4 * max(self.part_elements(i) for i in range(len(self._layout.parts)))
