"""One view's exchange: slices out and in, checked; sums; results out and in, checked.

Everything a member sends is held against the plan: its slice must lead to the digest it offered, a
result to the digest its reducer signed. Numeric work goes through `Offload`, a slice at a time, so
that the event loop is never held for long.

No vector is copied on its way: slices are sent from the offer's encoding, results are kept as they
came and decoded where they are needed. At float32 that is the offer (1 vector), what a reducer was
sent ((n-1)/n) and the results (1): less than 3 vectors.

In a plan of several rows a member scatters within its row; what each row summed passes between
members of one rank (`crossing.py`), who finish their shares of it and hand results on to each
other, and each to its row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import trio

from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.bulk_headers import (
    BulkHeader,
    Parcel,
    ResultHeader,
    SliceHeader,
    parcel,
)
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel
from daemon.services.training.native.exchange.bulk_sender import BulkSender
from daemon.services.training.native.exchange.inter_group_reduce import (
    GroupSumSample,
    InterGroupReduce,
)
from daemon.services.training.native.exchange.result_buffer import ResultBuffer
from protocol.averaging.group_layout import receivers
from protocol.averaging.reduction import mean_of_groups
from protocol.averaging.vector_layout import Vector, element_range
from protocol.codec import Codec, chunk_bytes
from protocol.contribution.commitment import Commitment, Merkle
from protocol.contribution.ledger import Offer
from protocol.digest import Buffer, Digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, short
from protocol.messages.base import Signed
from protocol.messages.envelope import open_as, sign
from protocol.messages.round import GroupSum, Inclusion, SliceResult
from protocol.planning.plan import OpenPlan
from protocol.ports.offload import Offload
from protocol.round.events import ContributionsReceived, Event, ResultReceived
from protocol.rules.registry import rule_set

# For how long the sender of bytes that came before their cut is kept waiting.
EARLY_S = 15.0


class AllReduce:
    """The bytes of one plan.

    `emit` gives the machine what happened; the owner cancels `average` when the view ends.
    """

    def __init__(
        self,
        *,
        plan: OpenPlan,
        run: Digest,
        signer: Signer,
        offer: Offer,
        codec: Codec,
        parameters: int,
        sender: BulkSender,
        buffers: Buffers,
        offload: Offload,
        emit: Callable[[Event], None],
        commitment: Commitment | None = None,
        seen: Callable[
            [PeerId, int, int, int, float], None
        ] = lambda _peer, _all_bytes, _our_bytes, _taken_bytes, _seconds: None,
    ) -> None:
        """`commitment` is how what travels is proved: `Merkle`, unless somebody wants to know what
        that costs.

        `seen` is told of a contributor whose part for us is here: bytes it sent to all by then,
        bytes of ours, bytes that we took from all, seconds since the plan.
        """
        self._seen = seen
        self._began_s = trio.current_time()
        self.plan = plan
        self.lost_by_encoding: dict[
            Digest, list[tuple[int, Vector]]
            # By cut: (first element, W x (mean - decoded)) of slices summed here.
        ] = {}
        self.cut: Inclusion | None = None
        self.cut_digest: Digest = b""
        self._run = run
        self._signer = signer
        self._offer = offer
        self._codec = codec
        self._parameters = parameters
        self._sender, self._buffers, self._offload, self._emit = sender, buffers, offload, emit
        buffers.next_round()
        self._commitment = commitment or Merkle()
        self._me = plan.index[signer.peer]
        self._layout = plan.layout
        self._row = self._layout.group_members(self._me)
        # Under the current cut, where there are several rows.
        self._crossing: InterGroupReduce | None = None
        # (slice, contributor) to its encoding, of what the plan has that member sum.
        self._held: dict[tuple[int, int], Buffer] = {}
        # (slice, member) we have nothing to send for.
        self._sent: set[tuple[int, int]] = {(i, self._me) for i in range(len(plan.members))}
        self._results = ResultBuffer(
            None, codec.result, parameters, buffers
        )  # under the current cut
        # Slice to the result made of it here, under the current cut.
        self._finished: dict[int, Parcel] = {}
        # (slice, member) that has its result from here.
        self._passed: set[tuple[int, int]] = set()
        # Slice to our row's sums of it, each with the member it was sent to.
        self._crossed: dict[int, list[tuple[int, Parcel]]] = {}
        self._gone: set[int] = set()
        self._earlier_cuts: set[Digest] = set()
        self._changed = trio.Event()
        if offer.weight:
            for i in self._row:
                self._held[i, self._me] = self._own(i)

    # -------------------------------------------------------------------------------------------- slices

    def _elements(self, index: int) -> tuple[int, int]:
        """Of a slice."""
        return element_range(*self._layout.slices[index], self._parameters)

    def _slice_bytes(self, index: int) -> int:
        start, stop = self._elements(index)
        return self._codec.result.size(stop - start)

    def _part_size(self, index: int) -> int:
        """Elements of what a member sums over its row."""
        start, stop = element_range(*self._layout.parts[index], self._parameters)
        return stop - start

    def _part_bytes(self, index: int) -> int:
        return self._codec.size(self._part_size(index))

    def _own(self, index: int) -> memoryview:
        at = self._layout.parts[index][0] * chunk_bytes(self._codec)
        return memoryview(self._offer.encoded)[at : at + self._part_bytes(index)]

    def scatter(self) -> None:
        """Send everybody in our row the part it sums, beginning behind ourselves so that not
        everybody sends to the first one first.
        """
        place = self._row.index(self._me)
        for i in (*self._row[place + 1 :], *self._row[:place]):
            self._send_part(i, i)
        self._tell_held()

    def _send_part(self, index: int, owner: int) -> None:
        if not self._offer.weight or not self._layout.sums(index) or (index, owner) in self._sent:
            return
        self._sent.add((index, owner))
        payload = self._own(index)
        proof = self._commitment.proof(self._offer.tree, *self._layout.parts[index])
        self._send(
            owner,
            parcel(
                SliceHeader(plan=self.plan.digest, slice=index, proof=proof, size=len(payload)),
                payload,
            ),
        )

    def _send(self, member: int, item: Parcel) -> None:
        self._sender.send(self.plan.members[member], self.plan.offers[member].fingerprint, item)

    def _tell_held(self) -> None:
        if not self._layout.sums(self._me):
            return
        self._emit(
            ContributionsReceived(
                plan=self.plan.digest,
                contributors=frozenset(c for s, c in self._held if s == self._me),
            )
        )

    # -------------------------------------------------------------------------------------------- what comes in

    async def accept(self, peer: PeerId, header: BulkHeader) -> ExpectedParcel:
        """Whether a parcel for this plan is wanted, and what to do with it. Raises `PeerFault`."""
        contributor = self.plan.index.get(peer)
        if contributor is None:
            raise PeerFault("not_member", "bytes from somebody who is not in the plan")
        match header:
            case SliceHeader():
                return await self._accept_part(contributor, header)
            case ResultHeader():
                return await self._accept_result(contributor, header)
        summed = open_as(GroupSum, header.summed, self._run)
        if summed.inclusion in self._earlier_cuts:
            return ExpectedParcel(
                header.size if header.size <= self._part_bytes_most else 0, _discard
            )
        await self._until(lambda: self.cut_digest == summed.inclusion)
        if self._crossing is None:
            raise PeerFault("not_member", "a row's sum in a plan of one row")
        return self._crossing.accept(contributor, header, summed, self._wake)

    @property
    def _part_bytes_most(self) -> int:
        """Of a row's sum, whatever slice it is of."""
        return 4 * max(self._part_size(i) for i in range(len(self.plan.members)))

    async def _accept_part(self, contributor: int, header: SliceHeader) -> ExpectedParcel:
        if header.slice >= len(self.plan.members) or not self.plan.offers[contributor].samples:
            raise PeerFault("not_member", f"bytes for slice {header.slice} that were not offered")
        if self._layout.group_of[header.slice] != self._layout.group_of[contributor]:
            raise PeerFault("not_member", f"bytes for slice {header.slice} from another row")
        await self._until(
            lambda: (
                header.slice == self._me
                or (self.cut is not None and self.cut.owners[header.slice] == self._me)
            )
        )
        return ExpectedParcel(
            self._part_bytes(header.slice),
            lambda data: self._take_part(header.slice, contributor, data, header.proof),
        )

    async def _accept_result(self, contributor: int, header: ResultHeader) -> ExpectedParcel:
        result = open_as(SliceResult, header.result, self._run)
        if result.inclusion in self._earlier_cuts and result.slice < len(self.plan.members):
            return ExpectedParcel(self._slice_bytes(result.slice), _discard)
        await self._until(lambda: self.cut_digest == result.inclusion)
        if self.cut is None or result.slice >= len(self.plan.members):
            raise PeerFault("malformed", f"a result for slice {result.slice}")
        owners, members = self.cut.owners, self.plan.members
        if header.result.peer != members[owners[result.slice]]:
            raise PeerFault(
                "not_member", f"{short(header.result.peer)} does not own slice {result.slice}"
            )
        # Any member may bring it: what its owner signed proves itself, and the owner may be dead.
        # Of this cut, though another one may come while the bytes do.
        memory = partial(self._results.memory, result.slice)
        return ExpectedParcel(
            self._slice_bytes(result.slice),
            lambda data: self._take_result(header.result, result, data),
            memory,
        )

    async def _until(self, wanted: Callable[[], bool]) -> None:
        """Bytes may arrive before the cut that asks for them: keep their sender waiting, for a
        while.
        """
        if wanted():
            return
        with trio.move_on_after(EARLY_S):
            while not wanted():
                await self._changed.wait()
            return
        raise PeerFault("stale", "bytes that the current cut does not ask for")

    async def _take_part(
        self, index: int, contributor: int, data: memoryview, proof: tuple[Digest, ...]
    ) -> None:
        if (index, contributor) in self._held:
            return
        if index == self._me and self.cut is None:
            # Lanes share an uplink evenly: when ours is done, longer ones have had as much.
            to_all = sum(min(self._part_bytes(i), len(data)) for i in self._row if i != contributor)
            taken = (len(self._row) - 1) * len(data)
            self._seen(
                self.plan.members[contributor],
                to_all,
                len(data),
                taken,
                trio.current_time() - self._began_s,
            )
        first, _ = self._layout.parts[index]
        total, root = self.plan.plan.borders[-1], self.plan.offers[contributor].contribution

        def check() -> None:
            if not self._commitment.fits(data, chunk_bytes(self._codec), first, total, proof, root):
                raise PeerFault(
                    "bad_proof",
                    f"slice {index} of {short(self.plan.members[contributor])} is not what it offered",
                )
            self._codec.check(data, self._part_size(index))

        await self._offload(check)
        self._held[index, contributor] = data
        self._wake()
        if index == self._me:
            self._tell_held()

    async def _take_result(self, signed: Signed, result: SliceResult, data: memoryview) -> None:
        if result.slice in self._results or result.inclusion != self.cut_digest:
            return
        start, stop = self._elements(result.slice)

        def check() -> None:
            if self._commitment.root(data, chunk_bytes(self._codec.result)) != result.root:
                raise PeerFault(
                    "bad_proof",
                    f"the result of slice {result.slice} is not what its reducer signed",
                )
            self._codec.result.check(data, stop - start)

        await self._offload(check)
        if result.inclusion == self.cut_digest and result.slice not in self._results:
            if self._crossing is not None:
                self._pass_on(
                    result.slice, parcel(ResultHeader(result=signed, size=len(data)), data)
                )
            self._finish_slice(result.slice, result.root, data, signed)

    def _finish_slice(
        self, index: int, root: Digest, encoded: Buffer, signed: Signed | None = None
    ) -> None:
        self._results.put(index, root, encoded, signed)
        for member, item in self._crossed.pop(index, ()):
            self._sender.forget(self.plan.members[member], item)
        self._emit(ResultReceived(inclusion=self.cut_digest, slice=index))
        self._wake()

    def _pass_on(self, index: int, item: Parcel) -> None:
        """Send a result to those who have it from us."""
        assert self.cut is not None
        for i in receivers(self._layout, self.cut, index, self._me, self._gone):
            if (index, i) not in self._passed:
                self._passed.add((index, i))
                self._send(i, item)

    def hand_on(self, slices: Sequence[int], to: Sequence[int]) -> None:
        """Send results that others signed to members that may lack them."""
        made = self._results.received()
        for index in slices:
            if index in made:
                signed, encoded = made[index]
                item = parcel(ResultHeader(result=signed, size=len(encoded)), encoded)
                for member in to:
                    if (index, member) not in self._passed:
                        self._passed.add((index, member))
                        self._send(member, item)

    def lost(self, peer: PeerId) -> None:
        """A member is gone.

        What it would have handed on to its row goes there from where it was made.
        """
        member = self.plan.index.get(peer)
        if member is not None and len(self._layout.groups) > 1:
            self._gone.add(member)
            for index, item in self._finished.items():
                self._pass_on(index, item)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # -------------------------------------------------------------------------------------------- the cut

    async def average(self, cut: Inclusion, cut_digest: Digest) -> Digest:
        """Carry out a cut until every slice's result is here.

        Returns the root over the results. Results under an earlier cut are discarded.
        """
        if self.cut is not None:
            self._earlier_cuts.add(self.cut_digest)
        self.cut, self.cut_digest = cut, cut_digest
        self._results = ResultBuffer(
            self._layout, self._codec.result, self._parameters, self._buffers
        )
        self._finished, self._passed, self._crossed = {}, set(), {}
        self._crossing = self._begin_crossing(cut) if len(self._layout.groups) > 1 else None
        self._wake()
        if self._me in cut.contributors:
            for i in self._row:
                self._send_part(i, cut.owners[i])
        ours = [
            i for i, owner in enumerate(cut.owners) if owner == self._me and self._layout.sums(i)
        ]
        if self._crossing is None:
            for i in ours:
                parts = await self._parts(i, cut.contributors)
                weighted = [(self.plan.offers[c].samples, data) for c, data in parts.items()]
                await self._finish(
                    i, partial(rule_set(self.plan.rules).weighted_mean, weighted, self._codec)
                )
        else:
            await self._cross(self._crossing, ours)
        while not self._results.complete:
            await self._changed.wait()
        return self._results.root()

    async def _cross(self, crossing: InterGroupReduce, ours: list[int]) -> None:
        """All rows' sums before any slice is finished: else two who do each other's work as well
        could wait for each other.
        """
        for i in ours:
            parts = await self._parts(i, crossing.of_row(self._layout.group_of[i]))
            for index, member, item in await crossing.sum_row(i, parts, self._send):
                self._crossed.setdefault(index, []).append((member, item))
        for i in ours:
            if self._layout.finishes(i):
                while not crossing.whole(i):
                    await self._changed.wait()
                await self._finish(
                    i,
                    partial(
                        mean_of_groups,
                        crossing.take(i),
                        mean_of=rule_set(self.plan.rules).weighted_mean,
                    ),
                )

    async def _parts(self, index: int, contributors: Sequence[int]) -> dict[int, Buffer]:
        """What contributors have for a member to sum, in their order."""
        while not all((index, c) in self._held for c in contributors):
            await self._changed.wait()
        return {c: self._held[index, c] for c in contributors}

    async def _finish(self, index: int, write_mean: Callable[[Vector], int]) -> None:
        """Encode, sign and send the mean of a slice.

        `write_mean` writes it and returns the included weight.
        """
        start, stop = self._elements(index)
        codec = self._codec.result
        encoded = self._results.memory(index)
        memory = (
            encoded
            if codec.lossless and sys.byteorder == "little"
            else self._buffers.take(4 * (stop - start))
        )

        def work() -> tuple[Digest, Vector | None]:
            mean = np.frombuffer(memory, np.float32)
            weight = write_mean(mean)
            if memory is not encoded:
                codec.encode_into(mean, 1.0, encoded)
            root = self._commitment.root(encoded, chunk_bytes(codec))
            if codec.lossless:
                return root, None
            codec.add(encoded, -1.0, mean)  # what encoding lost
            return root, np.multiply(mean, np.float32(weight), out=mean)

        root, error = await self._offload(work)
        result = sign(
            self._signer,
            self._run,
            SliceResult(plan=self.plan.digest, inclusion=self.cut_digest, slice=index, root=root),
        )
        self._finished[index] = parcel(ResultHeader(result=result, size=len(encoded)), encoded)
        self._pass_on(index, self._finished[index])
        if error is not None:
            self.lost_by_encoding.setdefault(self.cut_digest, []).append((start, error))
        self._finish_slice(index, root, encoded)

    def received(self) -> dict[int, tuple[Signed, Buffer]]:
        """Slice to what its reducer signed and the encoded mean, of those that others reduced under
        the current cut.
        """
        return self._results.received()

    def samples(self) -> list[GroupSumSample]:
        """Of the sums that other rows' members made under the current cut, for what is finished
        here.
        """
        return self._crossing.samples if self._crossing is not None else []

    def _begin_crossing(self, cut: Inclusion) -> InterGroupReduce:
        return InterGroupReduce(
            plan=self.plan,
            cut=cut,
            cut_digest=self.cut_digest,
            run=self._run,
            signer=self._signer,
            codec=self._codec,
            parameters=self._parameters,
            commitment=self._commitment,
            buffers=self._buffers,
            offload=self._offload,
        )

    def gathered(self) -> ResultBuffer:
        """The mean that `average` brought, whatever cuts come later."""
        return self._results


async def _discard(data: memoryview) -> None:
    """A result under a cut that was replaced while it was on its way."""
