"""One view's exchange: slices out and in, checked; sums; results out and in, checked; the outer step into the spare buffer.

Everything a member sends is held against the plan: its slice must lead to the digest it offered, a result to the digest its reducer signed. Numeric
work goes through `Offload`, a slice at a time, so that the event loop is never held for long.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trio

from daemon.engines.native.anchor import Anchor
from daemon.engines.native.bulk import BulkHeader, BulkSender, Intake, Parcel, ResultHeader, SliceHeader, parcel
from protocol.codec import Codec, chunk_bytes
from protocol.digest import EMPTY_ROOT, Buffer, Digest, leaves_of, merkle_root, range_proof, root_from_range
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, short
from protocol.layout import element_range
from protocol.ledger import Offer
from protocol.messages import Cut, SliceResult, Vote, open_as, sign
from protocol.plan import OpenPlan
from protocol.ports import Offload, Vector
from protocol.reduction import weighted_mean
from protocol.round.phases import Computed, Happening, HeldHere, ResultGot

EARLY_S = 15.0  # for how long the sender of bytes that came before their cut is kept waiting


class Exchange:
    """The bytes of one plan. `emit` gives the machine what happened; the owner cancels `reduce` when the view ends."""

    def __init__(
        self,
        *,
        plan: OpenPlan,
        run: Digest,
        signer: Signer,
        offer: Offer,
        codec: Codec,
        anchor: Anchor,
        sender: BulkSender,
        offload: Offload,
        emit: Callable[[Happening], None],
    ) -> None:
        self.plan = plan
        self.mean: Vector = np.zeros(anchor.parameters, np.float32)
        self.lost_by_encoding: list[tuple[int, Vector]] = []  # (first element, W x (mean - decoded)) of the slices summed here
        self.cut: Cut | None = None
        self.cut_digest: Digest = b""
        self._run, self._signer, self._offer, self._codec = run, signer, offer, codec
        self._anchor, self._sender, self._offload, self._emit = anchor, sender, offload, emit
        self._me = plan.index[signer.peer]
        self._held: dict[tuple[int, int], Buffer] = {}  # (slice, contributor) to its encoding
        self._sent: set[tuple[int, int]] = {(i, self._me) for i in range(len(plan.members))}  # (slice, member) we have nothing to send for
        self._roots: dict[int, Digest] = {}
        self._earlier_cuts: set[Digest] = set()
        self._changed = trio.Event()
        if offer.weight:
            for i in range(len(plan.members)):
                self._held[i, self._me] = self._own(i)

    # -------------------------------------------------------------------------------------------- slices

    def _chunks(self, index: int) -> tuple[int, int]:
        return self.plan.plan.borders[index], self.plan.plan.borders[index + 1]

    def _elements(self, index: int) -> tuple[int, int]:
        return element_range(*self._chunks(index), self._anchor.parameters)

    def _slice_bytes(self, index: int, codec: Codec) -> int:
        start, stop = self._elements(index)
        return codec.size(stop - start)

    def _is_empty(self, index: int) -> bool:
        start, stop = self._chunks(index)
        return start == stop

    def _own(self, index: int) -> bytes:
        start, _ = self._chunks(index)
        at = start * chunk_bytes(self._codec)
        return self._offer.encoded[at : at + self._slice_bytes(index, self._codec)]

    def scatter(self) -> None:
        """Send every member the slice it reduces."""
        for i in range(len(self.plan.members)):
            self._send_slice(i, i)
        self._tell_held()

    def _send_slice(self, index: int, owner: int) -> None:
        if not self._offer.weight or self._is_empty(index) or (index, owner) in self._sent:
            return
        self._sent.add((index, owner))
        start, stop = self._chunks(index)
        payload = memoryview(self._own(index))
        proof = tuple(range_proof(self._offer.leaves, start, stop))
        self._send(owner, parcel(SliceHeader(plan=self.plan.digest, slice=index, proof=proof, size=len(payload)), payload))

    def _send(self, member: int, item: Parcel) -> None:
        self._sender.send(self.plan.members[member], self.plan.offers[member].fingerprint, item)

    def _tell_held(self) -> None:
        if self._is_empty(self._me):
            return
        self._emit(HeldHere(plan=self.plan.digest, contributors=frozenset(c for s, c in self._held if s == self._me)))

    # -------------------------------------------------------------------------------------------- what comes in

    async def accept(self, peer: PeerId, header: BulkHeader) -> Intake:
        """Whether a parcel for this plan is wanted, and what to do with it. Raises `PeerFault`."""
        contributor = self.plan.index.get(peer)
        if contributor is None:
            raise PeerFault("not_member", "bytes from somebody who is not in the plan")
        if isinstance(header, SliceHeader):
            if header.slice >= len(self.plan.members) or not self.plan.offers[contributor].samples:
                raise PeerFault("not_member", f"bytes for slice {header.slice} that were not offered")
            await self._until(lambda: header.slice == self._me or (self.cut is not None and self.cut.owners[header.slice] == self._me))
            proof = header.proof
            return Intake(
                self._slice_bytes(header.slice, self._codec), lambda data: self._take_slice(header.slice, contributor, data, proof)
            )
        result = open_as(SliceResult, header.result, self._run)
        if result.cut in self._earlier_cuts and result.slice < len(self.plan.members):
            return Intake(self._slice_bytes(result.slice, self._codec.result), _discard)
        await self._until(lambda: self.cut_digest == result.cut)
        if self.cut is None or result.slice >= len(self.plan.members):
            raise PeerFault("malformed", f"a result for slice {result.slice}")
        if header.result.peer != peer or self.cut.owners[result.slice] != contributor:
            raise PeerFault("not_member", f"{short(peer)} does not own slice {result.slice}")
        return Intake(self._slice_bytes(result.slice, self._codec.result), lambda data: self._take_result(result, data))

    async def _until(self, wanted: Callable[[], bool]) -> None:
        """Bytes may arrive before the cut that asks for them: keep their sender waiting, for a while."""
        if wanted():
            return
        with trio.move_on_after(EARLY_S):
            while not wanted():
                await self._changed.wait()
            return
        raise PeerFault("stale", "bytes that the current cut does not ask for")

    async def _take_slice(self, index: int, contributor: int, data: bytearray, proof: tuple[Digest, ...]) -> None:
        if (index, contributor) in self._held:
            return
        start, _ = self._chunks(index)
        total = self.plan.plan.borders[-1]

        def check() -> None:
            if (
                root_from_range(leaves_of(data, chunk_bytes(self._codec)), start, total, proof)
                != self.plan.offers[contributor].contribution
            ):
                raise PeerFault("bad_proof", f"slice {index} of {short(self.plan.members[contributor])} is not what it offered")
            first, last = self._elements(index)
            self._codec.decode(data, np.empty(last - first, np.float32))

        await self._offload(check)
        self._held[index, contributor] = data
        self._wake()
        if index == self._me:
            self._tell_held()

    async def _take_result(self, result: SliceResult, data: bytearray) -> None:
        if result.slice in self._roots or result.cut != self.cut_digest:
            return
        start, stop = self._elements(result.slice)

        def check() -> Vector:
            if merkle_root(leaves_of(data, chunk_bytes(self._codec.result))) != result.root:
                raise PeerFault("bad_proof", f"the result of slice {result.slice} is not what its reducer signed")
            value = np.empty(stop - start, np.float32)
            self._codec.result.decode(data, value)
            return value

        value = await self._offload(check)
        if result.cut == self.cut_digest:
            self._finish_slice(result.slice, result.root, value)

    def _finish_slice(self, index: int, root: Digest, value: Vector) -> None:
        start, stop = self._elements(index)
        self.mean[start:stop] = value
        self._roots[index] = root
        self._emit(ResultGot(cut=self.cut_digest, slice=index))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # -------------------------------------------------------------------------------------------- the cut

    async def reduce(self, cut: Cut, cut_digest: Digest) -> None:
        """Carry out a cut, to `Computed`. Results under an earlier one are discarded."""
        if self.cut is not None:
            self._earlier_cuts.add(self.cut_digest)
        self.cut, self.cut_digest = cut, cut_digest
        self._roots = {i: EMPTY_ROOT for i in range(len(self.plan.members)) if self._is_empty(i)}
        self.lost_by_encoding = []
        self._wake()
        if self._me in cut.contributors:
            for i, owner in enumerate(cut.owners):
                self._send_slice(i, owner)
        for i, owner in enumerate(cut.owners):
            if owner == self._me and not self._is_empty(i):
                await self._reduce_slice(i, cut)
        while len(self._roots) < len(self.plan.members):
            await self._changed.wait()
        outcome = await self._anchor.step(self.mean, self._offload)
        self._emit(
            Computed(
                vote=Vote(
                    parents=(self.plan.plan.parent,),
                    number=self.plan.plan.number,
                    view=self.plan.plan.view,
                    plan=self.plan.digest,
                    cut=cut_digest,
                    result=merkle_root([self._roots[i] for i in range(len(self.plan.members))]),
                    state=outcome,
                )
            )
        )

    async def _reduce_slice(self, index: int, cut: Cut) -> None:
        while not all((index, c) in self._held for c in cut.contributors):
            await self._changed.wait()
        start, stop = self._elements(index)
        parts = [(self.plan.offers[c].samples, self._held[index, c]) for c in cut.contributors]

        def work() -> tuple[bytes, Digest, Vector, Vector | None]:
            mean = np.empty(stop - start, np.float32)
            weight = weighted_mean(parts, self._codec, mean)
            codec = self._codec.result
            encoded = codec.encode(mean)
            root = merkle_root(leaves_of(encoded, chunk_bytes(codec)))
            if codec.lossless:
                return encoded, root, mean, None
            decoded = np.empty_like(mean)
            codec.decode(encoded, decoded)
            return encoded, root, decoded, (mean - decoded) * np.float32(weight)

        encoded, root, decoded, error = await self._offload(work)
        result = sign(self._signer, self._run, SliceResult(plan=self.plan.digest, cut=self.cut_digest, slice=index, root=root))
        item = parcel(ResultHeader(result=result, size=len(encoded)), memoryview(encoded))
        for i in cut.present:
            if i != self._me:
                self._send(i, item)
        if error is not None:
            self.lost_by_encoding.append((start, error))
        self._finish_slice(index, root, decoded)


async def _discard(data: bytearray) -> None:
    """A result under a cut that was replaced while it was on its way."""
