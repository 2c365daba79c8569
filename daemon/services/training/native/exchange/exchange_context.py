"""What every exchange of a run shares: the facts that do not change, and what it works with."""

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
    # What the contributor had sent to all members by then.
    sent_to_all_bytes: int
    size_bytes: int
    # What this node had received from all members by then, or nearly.
    received_bytes: int
    # Since the plan.
    seconds: float


def _ignore(arrival: PartArrival) -> None:
    """Nobody measures the arrival of parts."""


class ExchangePorts(msgspec.Struct, frozen=True, kw_only=True):
    """What an exchange works with."""

    sender: BulkSender
    buffers: Buffers
    offload: Offload
    # Hands an event to the round machine.
    emit: Callable[[Event], None]
    # How parts and results are proved; a benchmark measures what that costs.
    commitment: Commitment = Merkle()
    on_part: Callable[[PartArrival], None] = _ignore


class ClosedSet(msgspec.Struct, frozen=True, kw_only=True):
    """The leader's inclusion with the digest of its signed message."""

    inclusion: Inclusion
    digest: Digest


class SliceSizes:
    """Where the slices and parts of a plan lie in the vector, and how many bytes they take."""

    def __init__(self, layout: GroupLayout, codec: Codec, parameters: int) -> None:
        self._layout, self._codec, self._parameters = layout, codec, parameters

    def elements(self, index: int) -> tuple[int, int]:
        """Elements `[start, stop)` of a slice."""
        return element_range(*self._layout.slices[index], self._parameters)

    def result_bytes(self, index: int) -> int:
        """Size of the encoded mean of a slice."""
        start, stop = self.elements(index)
        return self._codec.result.size(stop - start)

    def part_elements(self, index: int) -> int:
        """Elements that member `index` sums over its group."""
        start, stop = element_range(*self._layout.parts[index], self._parameters)
        return stop - start

    def part_bytes(self, index: int) -> int:
        """Size of one contribution to what member `index` sums."""
        return self._codec.size(self.part_elements(index))

    @property
    def largest_part_bytes(self) -> int:
        """Size of the largest part in float32: no sum of a group is larger."""
        return 4 * max(self.part_elements(i) for i in range(len(self._layout.parts)))
