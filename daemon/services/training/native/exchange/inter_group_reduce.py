"""What passes between the rows of a plan: what each row summed, where a member of the same rank
takes it in.

A row's sum is made and sent share by share, so that each can be let go when the result that it went
into is here: with them, and the slices, and the results, averaging holds less than 3 vectors in
rows that are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec
import numpy as np

from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.bulk_headers import GroupSumHeader, Parcel, parcel
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel
from protocol.averaging.reduction import GROUP_CODEC
from protocol.averaging.sum_audit import Piece, draw_group_chunk, result_piece
from protocol.averaging.vector_layout import element_range
from protocol.codec import Codec, chunk_bytes, codec_named
from protocol.contribution.commitment import Commitment
from protocol.digest import Buffer, Digest
from protocol.errors import PeerFault
from protocol.identity import Signer, short
from protocol.messages.base import Signed
from protocol.messages.envelope import sign
from protocol.messages.round import GroupSum, Inclusion
from protocol.planning.plan import OpenPlan
from protocol.ports.offload import Offload
from protocol.rules.registry import rule_set

_CODEC = codec_named(GROUP_CODEC)


class GroupSumSample(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk (of the whole vector) of a sum that another row's member signed."""

    signed: Signed
    slice: int
    chunk: int
    piece: Piece


class InterGroupReduce:
    """The sums of all rows for the slices that are finished here, under one cut."""

    def __init__(
        self,
        *,
        plan: OpenPlan,
        cut: Inclusion,
        cut_digest: Digest,
        run: Digest,
        signer: Signer,
        codec: Codec,
        parameters: int,
        commitment: Commitment,
        buffers: Buffers,
        offload: Offload,
    ) -> None:
        """Holds nothing of the exchange that it is part of: a cycle would keep its vectors until
        the collector comes by.
        """
        self._plan, self._layout, self._cut, self._cut_digest = plan, plan.layout, cut, cut_digest
        self._run, self._signer, self._codec, self._parameters = run, signer, codec, parameters
        self._commitment, self._buffers, self._offload = commitment, buffers, offload
        self._me = plan.index[signer.peer]
        self._sums: dict[tuple[int, int], Buffer] = {}  # (row, slice) to the row's mean of it
        self._taken: set[int] = set()  # slices whose sums went into a result
        # What is left of others' sums, for whoever looks after them.
        self.samples: list[GroupSumSample] = []
        self._weights = {
            r: sum(plan.offers[c].samples for c in self.of_row(r))
            for r in self._layout.groups_with(cut.contributors)
        }

    def of_row(self, row: int) -> list[int]:
        """The contributors that stand in it."""
        return [c for c in self._cut.contributors if self._layout.group_of[c] == row]

    def _elements(self, index: int) -> tuple[int, int]:
        return element_range(*self._layout.slices[index], self._parameters)

    # -------------------------------------------------------------------------------------------- our own

    async def sum_row(
        self, index: int, parts: Mapping[int, Buffer], send: Callable[[int, Parcel], None]
    ) -> list[tuple[int, int, Parcel]]:
        """Sum what member `index` has to, from its row's contributors, and `send` each share to the
        member that takes it in.

        Returns what may be forgotten when the result of a slice is here: (slice, member, parcel).
        """
        sent: list[tuple[int, int, Parcel]] = []
        row, (first, _) = self._layout.group_of[index], self._layout.parts[index]
        weighted = [(self._plan.offers[c].samples, memoryview(data)) for c, data in parts.items()]
        behind = sorted(
            (j for j in self._layout.counterparts[index] if self._layout.finishes(j)),
            key=lambda j: (j <= index, j),
        )
        for j in behind if weighted else ():
            at = (self._layout.slices[j][0] - first) * chunk_bytes(self._codec)
            start, stop = self._elements(j)
            size = self._codec.size(stop - start)
            shares = [(weight, data[at : at + size]) for weight, data in weighted]
            owner = self._cut.owners[j]
            memory = self._buffers.take(_CODEC.size(stop - start))
            encoded, root = await self._offload(partial(self._sum, shares, memory))
            del memory
            if owner == self._me:
                self._sums[row, j] = encoded
                continue
            summed = GroupSum(
                plan=self._plan.digest, inclusion=self._cut_digest, part=index, slice=j, root=root
            )
            item = parcel(
                GroupSumHeader(summed=sign(self._signer, self._run, summed), size=len(encoded)),
                encoded,
            )
            send(owner, item)
            sent.append((j, owner, item))
        return sent

    def _sum(
        self, shares: list[tuple[int, memoryview]], memory: memoryview
    ) -> tuple[memoryview, Digest]:
        mean = np.frombuffer(memory, np.float32)
        rule_set(self._plan.rules).weighted_mean(shares, self._codec, mean)
        encoded = memoryview(mean.astype("<f4", copy=False)).cast("B")
        return encoded, self._commitment.root(encoded, chunk_bytes(_CODEC))

    # -------------------------------------------------------------------------------------------- from the other rows

    def size(self, index: int) -> int:
        """Bytes of a row's sum of this slice."""
        start, stop = self._elements(index)
        return _CODEC.size(stop - start)

    def accept(
        self,
        contributor: int,
        header: GroupSumHeader,
        summed: GroupSum,
        changed: Callable[[], None],
    ) -> ExpectedParcel:
        """Another row's sum, whose taking calls `changed`.

        Raises `PeerFault` for what this cut does not ask its sender for.
        """
        layout, owners, count = self._layout, self._cut.owners, len(self._plan.members)
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
        if owners[summed.slice] != self._me or layout.group_of[summed.part] not in self._weights:
            raise PeerFault(
                "not_member", f"a row's sum of slice {summed.slice}, which is not asked for here"
            )
        return ExpectedParcel(
            self.size(summed.slice), lambda data: self._take(header.summed, summed, data, changed)
        )

    async def _take(
        self, signed: Signed, summed: GroupSum, data: memoryview, changed: Callable[[], None]
    ) -> None:
        key = self._layout.group_of[summed.part], summed.slice
        if key in self._sums or summed.slice in self._taken:
            return

        first, last = self._layout.slices[summed.slice]
        drawn = draw_group_chunk(
            self._signer, self._cut_digest, len(self._plan.members), last - first
        )

        def check() -> Piece | None:
            if self._commitment.root(data, chunk_bytes(_CODEC)) != summed.root:
                raise PeerFault(
                    "bad_proof",
                    f"the row's sum of slice {summed.slice} is not what its reducer signed",
                )
            _CODEC.check(data, len(data) // _CODEC.size(1))
            return None if drawn is None else result_piece(data, _CODEC, drawn)

        piece = await self._offload(check)
        if piece is not None and drawn is not None:
            self.samples.append(
                GroupSumSample(signed=signed, slice=summed.slice, chunk=first + drawn, piece=piece)
            )
        if summed.slice not in self._taken:
            self._sums[key] = data
            changed()

    def whole(self, index: int) -> bool:
        """Whether all rows' sums of a slice are here."""
        return all((row, index) in self._sums for row in self._weights)

    def take(self, index: int) -> list[tuple[int, Buffer]]:
        """Them, in the rows' order, each with its weight; not kept any longer."""
        self._taken.add(index)
        return [(weight, self._sums.pop((row, index))) for row, weight in self._weights.items()]
