"""Holds the parts of contributions: those that this member offers, and those that it sums.

Parts of this member's own offer are slices of the offer's encoding, not copies.
"""

from __future__ import annotations

from collections.abc import Sequence

from daemon.services.training.native.exchange.exchange_context import (
    ExchangeContext,
    ExchangePorts,
    PartArrival,
    SliceSizes,
)
from protocol.codec import chunk_bytes
from protocol.contribution.offer import Offer
from protocol.digest import Buffer, Digest
from protocol.errors import PeerFault
from protocol.identity import short
from protocol.planning.plan import OpenPlan


class PartBuffer:
    """The parts under one plan, each checked against its contributor's offer."""

    def __init__(
        self, plan: OpenPlan, offer: Offer, context: ExchangeContext, ports: ExchangePorts
    ) -> None:
        self._plan, self._layout, self._offer = plan, plan.layout, offer
        self._codec, self._ports = context.codec, ports
        self._sizes = SliceSizes(plan.layout, context.codec, context.parameters)
        # (member that sums it, contributor) to the encoded part.
        self._received: dict[tuple[int, int], Buffer] = {}
        self._me = plan.index[context.signer.peer]
        self._group = self._layout.group_members(self._me)
        if offer.weight:
            for index in self._group:
                self._received[index, self._me] = self.own(index)

    def own(self, index: int) -> memoryview:
        """Return this node's contribution to the sum of member `index`."""
        at = self._layout.parts[index][0] * chunk_bytes(self._codec)
        return memoryview(self._offer.encoded)[at : at + self._sizes.part_bytes(index)]

    def own_proof(self, index: int) -> tuple[Digest, ...]:
        """Return the digests that lead from `own(index)` to the digest of this node's offer."""
        return self._ports.commitment.proof(self._offer.tree, *self._layout.parts[index])

    def __contains__(self, key: tuple[int, int]) -> bool:
        """Whether the part of (member that sums it, contributor) has arrived."""
        return key in self._received

    def contributors(self, index: int) -> frozenset[int]:
        """Return the contributors whose part for member `index` has arrived."""
        return frozenset(contributor for of, contributor in self._received if of == index)

    def has_all(self, index: int, contributors: Sequence[int]) -> bool:
        """Whether every contributor's part for member `index` has arrived."""
        return all((index, contributor) in self._received for contributor in contributors)

    def parts(self, index: int, contributors: Sequence[int]) -> dict[int, Buffer]:
        """Return the contributors' parts for member `index`, in the order of `contributors`."""
        return {contributor: self._received[index, contributor] for contributor in contributors}

    def own_parts(self, index: int) -> dict[int, memoryview]:
        """Return this node's contribution to the sum of member `index`, by its own member index.

        Empty where this node offers nothing.
        """
        part = self._received.get((index, self._me))
        return {self._me: part} if isinstance(part, memoryview) else {}

    def check_sender(self, index: int, contributor: int) -> None:
        """Raise `PeerFault` unless the plan has `contributor` send a part for member `index`."""
        if index >= len(self._plan.members) or not self._plan.offers[contributor].samples:
            raise PeerFault("not_member", f"the peer offered no bytes for slice {index}")
        if self._layout.group_of[index] != self._layout.group_of[contributor]:
            raise PeerFault("not_member", f"slice {index} belongs to another group than the peer")

    def arrival(self, contributor: int, size_bytes: int, seconds: float) -> PartArrival:
        """Describe the arrival of a part as a measurement of its contributor's link."""
        # Streams share an uplink evenly: when this one is done, longer ones have carried as much.
        others = (i for i in self._group if i != contributor)
        return PartArrival(
            peer=self._plan.members[contributor],
            sent_to_all_bytes=sum(min(self._sizes.part_bytes(i), size_bytes) for i in others),
            size_bytes=size_bytes,
            received_bytes=(len(self._group) - 1) * size_bytes,
            seconds=seconds,
        )

    async def receive(
        self, index: int, contributor: int, data: memoryview, proof: tuple[Digest, ...]
    ) -> None:
        """Keep a part. Raises `PeerFault` unless it belongs to its contributor's offer."""
        first, _ = self._layout.parts[index]
        total, root = self._plan.plan.borders[-1], self._plan.offers[contributor].contribution

        def check() -> None:
            commitment = self._ports.commitment
            if not commitment.fits(data, chunk_bytes(self._codec), first, total, proof, root):
                raise PeerFault(
                    "bad_proof",
                    f"slice {index} of {short(self._plan.members[contributor])}"
                    " does not match its offer",
                )
            self._codec.check(data, self._sizes.part_elements(index))

        await self._ports.offload(check)
        self._received[index, contributor] = data
