"""Exchanges the groups' sums of a plan: each member that finishes a slice receives its sums.

A member makes and sends its group's sum share by share, so that each share can be dropped when the
result that it went into arrives. With groups of one size, averaging thus holds less than 3 vectors:
the sums, the parts and the results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec
import numpy as np

from daemon.services.training.native.exchange.bulk_headers import GroupSumHeader, Parcel, parcel
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel
from daemon.services.training.native.exchange.exchange_context import (
    ClosedSet,
    ExchangeContext,
    ExchangePorts,
    SliceSizes,
)
from protocol.averaging.plan_sum import ClipTally, PlanSum
from protocol.averaging.reduction import GROUP_CODEC
from protocol.averaging.sum_audit import Piece, draw_group_chunk, result_piece
from protocol.codec import chunk_bytes, codec_named
from protocol.digest import Buffer, Digest
from protocol.errors import PeerFault
from protocol.identity import short
from protocol.messages.base import Signed
from protocol.messages.envelope import sign
from protocol.messages.round import GroupSum
from protocol.planning.plan import OpenPlan

_CODEC = codec_named(GROUP_CODEC)


class GroupSumSample(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk of a sum that a member of another group signed."""

    signed: Signed
    slice: int
    # The chunk's number, counted from the start of the vector.
    chunk: int
    piece: Piece


class InterGroupReduce:
    """The groups' sums for the slices that this node finishes, under one inclusion.

    No object that it refers to refers back: a cycle would keep its vectors until the garbage
    collector runs.
    """

    def __init__(
        self, plan: OpenPlan, closed_set: ClosedSet, context: ExchangeContext, ports: ExchangePorts
    ) -> None:
        self._plan, self._layout = plan, plan.layout
        self._inclusion, self._digest = closed_set.inclusion, closed_set.digest
        self._context, self._ports = context, ports
        self._sizes = SliceSizes(plan.layout, context.codec, context.parameters)
        self._me = plan.index[context.signer.peer]
        # The mean of each group, by (group, slice).
        self._sums: dict[tuple[int, int], Buffer] = {}
        # The slices whose sums went into a result.
        self._used: set[int] = set()
        # Chunks of other groups' sums, for the audit.
        self.samples: list[GroupSumSample] = []
        self.sums = PlanSum(plan, self._inclusion.contributors, context.parameters)
        # What the clip left of the contributions of this node's group.
        self.tally = ClipTally()

    def contributors_of(self, group: int) -> list[int]:
        """Return the contributors in a group."""
        return [c for c in self._inclusion.contributors if self._layout.group_of[c] == group]

    # ---------------------------------------------------------------- our own group's sums

    async def sum_group(
        self, index: int, parts: Mapping[int, Buffer], send: Callable[[int, Parcel], None]
    ) -> list[tuple[int, int, Parcel]]:
        """Sum the part of member `index` over its group, and `send` each share to its finisher.

        Returns:
            Each (slice, member, parcel) that may be dropped once the slice's result arrives.
        """
        sent: list[tuple[int, int, Parcel]] = []
        group, (first, _) = self._layout.group_of[index], self._layout.parts[index]
        whole = [(c, memoryview(data)) for c, data in parts.items()]
        codec = self._context.codec
        # Each member begins with its successor, as in `AllReduce.scatter`.
        finishers = sorted(
            (j for j in self._layout.counterparts[index] if self._layout.finishes(j)),
            key=lambda j: (j <= index, j),
        )
        for j in finishers if whole else ():
            at = (self._layout.slices[j][0] - first) * chunk_bytes(codec)
            start, stop = self._sizes.elements(j)
            size = codec.size(stop - start)
            shares = [(c, data[at : at + size]) for c, data in whole]
            owner = self._inclusion.owners[j]
            memory = self._ports.buffers.acquire(_CODEC.size(stop - start))
            encoded, root = await self._ports.offload(partial(self._sum, shares, memory))
            del memory
            if owner == self._me:
                self._sums[group, j] = encoded
                continue
            summed = GroupSum(
                plan=self._plan.digest, inclusion=self._digest, part=index, slice=j, root=root
            )
            signed = sign(self._context.signer, self._context.run, summed)
            item = parcel(GroupSumHeader(summed=signed, size=len(encoded)), encoded)
            send(owner, item)
            sent.append((j, owner, item))
        return sent

    def _sum(
        self, shares: list[tuple[int, memoryview]], memory: memoryview
    ) -> tuple[memoryview, Digest]:
        mean = np.frombuffer(memory, np.float32)
        self.sums.mean(shares, self._context.codec, mean, self.tally)
        encoded = mean.astype("<f4", copy=False).data.cast("B")
        return encoded, self._ports.commitment.root(encoded, chunk_bytes(_CODEC))

    # ---------------------------------------------------------------- the other groups' sums

    def accept(
        self,
        contributor: int,
        header: GroupSumHeader,
        summed: GroupSum,
        on_change: Callable[[], None],
    ) -> ExpectedParcel:
        """Expect another group's sum, and call `on_change` once the sum has arrived.

        Raises `PeerFault` for a sum that this inclusion does not ask of its sender.
        """
        layout, owners, count = self._layout, self._inclusion.owners, len(self._plan.members)
        known = (
            max(summed.part, summed.slice) < count
            and summed.slice in layout.counterparts[summed.part]
        )
        if (
            not known
            or header.summed.peer != self._plan.members[contributor]
            or owners[summed.part] != contributor
        ):
            raise PeerFault(
                "not_member",
                f"{short(self._plan.members[contributor])} does not sum part {summed.part}",
            )
        if (
            owners[summed.slice] != self._me
            or layout.group_of[summed.part] not in self.sums.group_weights
        ):
            raise PeerFault(
                "not_member",
                f"this node does not need the group's sum of slice {summed.slice}",
            )
        start, stop = self._sizes.elements(summed.slice)
        return ExpectedParcel(
            _CODEC.size(stop - start),
            lambda data: self._receive(header.summed, summed, data, on_change),
        )

    async def _receive(
        self, signed: Signed, summed: GroupSum, data: memoryview, on_change: Callable[[], None]
    ) -> None:
        key = self._layout.group_of[summed.part], summed.slice
        if key in self._sums or summed.slice in self._used:
            return

        first, last = self._layout.slices[summed.slice]
        count = len(self._plan.members)
        drawn = draw_group_chunk(self._context.signer, self._digest, count, last - first)

        def check() -> Piece | None:
            if self._ports.commitment.root(data, chunk_bytes(_CODEC)) != summed.root:
                raise PeerFault(
                    "bad_proof",
                    f"the group's sum of slice {summed.slice} does not match its signature",
                )
            _CODEC.check(data, len(data) // _CODEC.size(1))
            return None if drawn is None else result_piece(data, _CODEC, drawn)

        piece = await self._ports.offload(check)
        if piece is not None and drawn is not None:
            self.samples.append(
                GroupSumSample(signed=signed, slice=summed.slice, chunk=first + drawn, piece=piece)
            )
        if summed.slice not in self._used:
            self._sums[key] = data
            on_change()

    def has_all(self, index: int) -> bool:
        """Return whether the sums of all groups for a slice have arrived."""
        return all((group, index) in self._sums for group in self.sums.group_weights)

    def pop(self, index: int) -> list[tuple[int, Buffer]]:
        """Return the sums of a slice with their groups, in the groups' order, and drop them."""
        self._used.add(index)
        return [(group, self._sums.pop((group, index))) for group in self.sums.group_weights]
