"""One view's exchange: slices out and in, checked; sums; results out and in, checked.

Everything a member sends is held against the plan: its slice must lead to the digest it offered, a result to the digest its reducer signed. Numeric
work goes through `Offload`, a slice at a time, so that the event loop is never held for long.

No vector is copied on its way: slices are sent from the offer's encoding, results are kept as they came and decoded where they are needed. At
float32 that is the offer (1 vector), what a reducer was sent ((n-1)/n) and the results (1): less than 3 vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import trio

from daemon.engines.native.bulk import BulkHeader, BulkSender, Intake, Parcel, ResultHeader, SliceHeader, parcel
from protocol.codec import Codec, chunk_bytes
from protocol.commitment import Commitment, Merkle
from protocol.digest import EMPTY_ROOT, Buffer, Digest, merkle_root
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, short
from protocol.layout import CHUNK_ELEMENTS, element_range
from protocol.ledger import Offer
from protocol.messages import Cut, Signed, SliceResult, open_as, sign
from protocol.plan import OpenPlan
from protocol.ports import Offload, Vector
from protocol.reduction import weighted_mean
from protocol.round.phases import Happening, HeldHere, ResultGot

EARLY_S = 15.0  # for how long the sender of bytes that came before their cut is kept waiting


class Exchange:
    """The bytes of one plan. `emit` gives the machine what happened; the owner cancels `average` when the view ends."""

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
        offload: Offload,
        emit: Callable[[Happening], None],
        commitment: Commitment | None = None,
    ) -> None:
        """`commitment` is how what travels is proved: `Merkle`, unless somebody wants to know what that costs."""
        self.plan = plan
        self.lost_by_encoding: list[tuple[int, Vector]] = []  # (first element, W x (mean - decoded)) of the slices summed here
        self.cut: Cut | None = None
        self.cut_digest: Digest = b""
        self._run, self._signer, self._offer, self._codec, self._parameters = run, signer, offer, codec, parameters
        self._sender, self._offload, self._emit = sender, offload, emit
        self._commitment = commitment or Merkle()
        self._me = plan.index[signer.peer]
        self._held: dict[tuple[int, int], Buffer] = {}  # (slice, contributor) to its encoding
        self._sent: set[tuple[int, int]] = {(i, self._me) for i in range(len(plan.members))}  # (slice, member) we have nothing to send for
        self._results: dict[int, tuple[Digest, Buffer]] = {}  # slice to root and encoding of its mean, under the current cut
        self._signed: dict[int, Signed] = {}  # slice to what its reducer signed, of those that came here under the current cut
        self._earlier_cuts: set[Digest] = set()
        self._changed = trio.Event()
        if offer.weight:
            for i in range(len(plan.members)):
                self._held[i, self._me] = self._own(i)

    # -------------------------------------------------------------------------------------------- slices

    def _chunks(self, index: int) -> tuple[int, int]:
        return self.plan.plan.borders[index], self.plan.plan.borders[index + 1]

    def _elements(self, index: int) -> tuple[int, int]:
        return element_range(*self._chunks(index), self._parameters)

    def _slice_bytes(self, index: int, codec: Codec) -> int:
        start, stop = self._elements(index)
        return codec.size(stop - start)

    def _is_empty(self, index: int) -> bool:
        start, stop = self._chunks(index)
        return start == stop

    def _own(self, index: int) -> memoryview:
        start, _ = self._chunks(index)
        at = start * chunk_bytes(self._codec)
        return memoryview(self._offer.encoded)[at : at + self._slice_bytes(index, self._codec)]

    def scatter(self) -> None:
        """Send every member the slice it reduces, beginning behind ourselves so that not everybody sends to the first one first."""
        members = len(self.plan.members)
        for i in (*range(self._me + 1, members), *range(self._me)):
            self._send_slice(i, i)
        self._tell_held()

    def _send_slice(self, index: int, owner: int) -> None:
        if not self._offer.weight or self._is_empty(index) or (index, owner) in self._sent:
            return
        self._sent.add((index, owner))
        payload = self._own(index)
        proof = self._commitment.proof(self._offer.tree, *self._chunks(index))
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
        return Intake(self._slice_bytes(result.slice, self._codec.result), lambda data: self._take_result(header.result, result, data))

    async def _until(self, wanted: Callable[[], bool]) -> None:
        """Bytes may arrive before the cut that asks for them: keep their sender waiting, for a while."""
        if wanted():
            return
        with trio.move_on_after(EARLY_S):
            while not wanted():
                await self._changed.wait()
            return
        raise PeerFault("stale", "bytes that the current cut does not ask for")

    async def _take_slice(self, index: int, contributor: int, data: memoryview, proof: tuple[Digest, ...]) -> None:
        if (index, contributor) in self._held:
            return
        first, _ = self._chunks(index)
        total, root = self.plan.plan.borders[-1], self.plan.offers[contributor].contribution

        def check() -> None:
            if not self._commitment.fits(data, chunk_bytes(self._codec), first, total, proof, root):
                raise PeerFault("bad_proof", f"slice {index} of {short(self.plan.members[contributor])} is not what it offered")
            self._codec.check(data, self._size(index))

        await self._offload(check)
        self._held[index, contributor] = data
        self._wake()
        if index == self._me:
            self._tell_held()

    def _size(self, index: int) -> int:
        start, stop = self._elements(index)
        return stop - start

    async def _take_result(self, signed: Signed, result: SliceResult, data: memoryview) -> None:
        if result.slice in self._results or result.cut != self.cut_digest:
            return

        def check() -> None:
            if self._commitment.root(data, chunk_bytes(self._codec.result)) != result.root:
                raise PeerFault("bad_proof", f"the result of slice {result.slice} is not what its reducer signed")
            self._codec.result.check(data, self._size(result.slice))

        await self._offload(check)
        if result.cut == self.cut_digest:
            self._signed[result.slice] = signed
            self._finish_slice(result.slice, result.root, data)

    def _finish_slice(self, index: int, root: Digest, encoded: Buffer) -> None:
        self._results[index] = (root, encoded)
        self._emit(ResultGot(cut=self.cut_digest, slice=index))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # -------------------------------------------------------------------------------------------- the cut

    async def average(self, cut: Cut, cut_digest: Digest) -> Digest:
        """Carry out a cut until every slice's result is here. Returns the root over the results. Results under an earlier cut are discarded."""
        if self.cut is not None:
            self._earlier_cuts.add(self.cut_digest)
        self.cut, self.cut_digest = cut, cut_digest
        self._results = {i: (EMPTY_ROOT, b"") for i in range(len(self.plan.members)) if self._is_empty(i)}
        self._signed = {}
        self.lost_by_encoding = []
        self._wake()
        if self._me in cut.contributors:
            for i, owner in enumerate(cut.owners):
                self._send_slice(i, owner)
        for i, owner in enumerate(cut.owners):
            if owner == self._me and not self._is_empty(i):
                await self._reduce_slice(i, cut)
        while len(self._results) < len(self.plan.members):
            await self._changed.wait()
        return merkle_root([self._results[i][0] for i in range(len(self.plan.members))])

    async def _reduce_slice(self, index: int, cut: Cut) -> None:
        while not all((index, c) in self._held for c in cut.contributors):
            await self._changed.wait()
        start, stop = self._elements(index)
        parts = [(self.plan.offers[c].samples, self._held[index, c]) for c in cut.contributors]

        def work() -> tuple[Buffer, Digest, Vector | None]:
            mean = np.empty(stop - start, np.float32)
            weight = weighted_mean(parts, self._codec, mean)
            codec = self._codec.result
            if codec.lossless:
                encoded: Buffer = memoryview(mean.astype("<f4", copy=False)).cast("B")
                return encoded, self._commitment.root(encoded, chunk_bytes(codec)), None
            encoded = codec.encode(mean)
            decoded = np.empty_like(mean)
            codec.decode(encoded, decoded)
            return encoded, self._commitment.root(encoded, chunk_bytes(codec)), (mean - decoded) * np.float32(weight)

        encoded, root, error = await self._offload(work)
        result = sign(self._signer, self._run, SliceResult(plan=self.plan.digest, cut=self.cut_digest, slice=index, root=root))
        item = parcel(ResultHeader(result=result, size=len(encoded)), memoryview(encoded))
        present = sorted(cut.present, key=lambda i: (i <= self._me, i))  # beginning behind ourselves, as the scatter does
        for i in present:
            if i != self._me:
                self._send(i, item)
        if error is not None:
            self.lost_by_encoding.append((start, error))
        self._finish_slice(index, root, encoded)

    def received(self) -> dict[int, tuple[Signed, Buffer]]:
        """Slice to what its reducer signed and the encoded mean, of those that others reduced under the current cut."""
        return {i: (signed, self._results[i][1]) for i, signed in self._signed.items() if i in self._results}

    def mean(self) -> Callable[[int, Vector], None]:
        """What reads the mean that `average` brought, whatever cuts come later.

        It takes (start, out) and decodes elements `[start, start + out.size)` into `out`; both ends at a chunk border or the vector's end.
        """
        return partial(self._decode, self._results)

    def _decode(self, results: dict[int, tuple[Digest, Buffer]], start: int, out: Vector) -> None:
        codec, chunk = self._codec.result, chunk_bytes(self._codec.result)
        for index, (_, encoded) in results.items():
            first, last = self._elements(index)
            since, until = max(first, start), min(last, start + out.size)
            if since < until:
                skipped = (since - first) // CHUNK_ELEMENTS * chunk
                wanted = memoryview(encoded)[skipped : skipped + codec.size(until - since)]
                codec.decode(wanted, out[since - start : until - start])


async def _discard(data: memoryview) -> None:
    """A result under a cut that was replaced while it was on its way."""
