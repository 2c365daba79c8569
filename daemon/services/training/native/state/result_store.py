"""Keeps the encoded means of recent certificates, in memory and on disk.

The mean of a round is what turns the state before it into the state after it
(`protocol/averaging/replay.py`). Members that missed the round ask for it, and a node that starts
again replays it onto its last full state.

In memory a node keeps the last few of them. On disk it keeps those that it has to make durable
(`protocol/certificates/result_keepers.py`) until its own full state is newer. A merge has no mean:
every node that prepares one makes the merged state durable before it votes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from daemon.swarm.lineage import Lineage
from daemon.swarm.result_transfer import HeldMean
from protocol.averaging.encoded_mean import EncodedMean, MeanPieces, pieces_of
from protocol.averaging.outer_step import state_digest
from protocol.averaging.plan_sum import codec_of
from protocol.averaging.replay import State, is_merge
from protocol.certificates.certificate import OpenCertificate, certificate_hash
from protocol.certificates.result_keepers import keepers
from protocol.codec import Codec, codec_named
from protocol.digest import Digest
from protocol.identity import PeerId
from protocol.journal import JournalEvent, Warned
from protocol.messages.envelope import payload_of
from protocol.messages.round import Inclusion, Vote
from protocol.planning.plan import OpenPlan
from protocol.ports.disk import Disk, DiskFull
from protocol.ports.offload import Offload

# The most certificates whose means stay in memory. A member that is further behind gets means from
# the disks of their keepers, or a full state.
RESULTS_KEPT = 16
# The most memory for them beside the newest, in bytes a parameter: half as much as the parameters
# themselves. It holds the last four rounds at int4 and one at float32.
KEPT_BYTES_PER_PARAMETER = 2
# The certificates whose digests of pieces are kept, 32 bytes for each 256 KiB.
DIGESTS_KEPT = 64


class ResultStore:
    """The means that one node keeps in one run."""

    def __init__(
        self,
        *,
        run: Digest,
        me: PeerId,
        codec: str,
        parameters: int,
        lineage: Lineage,
        disk: Disk,
        offload: Offload,
        record: Callable[[JournalEvent], None],
    ) -> None:
        """`codec` is the codec of the run's contributions."""
        self._codec = codec_named(codec)
        self._run, self._me, self._parameters, self._lineage = run, me, parameters, lineage
        self._disk, self._offload, self._record = disk, offload, record
        # The oldest first.
        self._kept: OrderedDict[Digest, EncodedMean] = OrderedDict()
        self._digests: OrderedDict[Digest, list[Digest]] = OrderedDict()

    # ---------------------------------------------------------------- in memory

    @property
    def kept(self) -> int:
        """The number of means in memory."""
        return len(self._kept)

    def put(self, name: Digest, mean: EncodedMean) -> None:
        """Keep the mean of an adopted certificate in memory, and forget the oldest."""
        self._kept[name] = mean
        self._kept.move_to_end(name)
        most = KEPT_BYTES_PER_PARAMETER * self._parameters
        while len(self._kept) > 1 and (
            len(self._kept) > RESULTS_KEPT
            or sum(kept.size_bytes for kept in self._kept.values()) > most
        ):
            self._kept.popitem(last=False)

    def codec(self, certificate: OpenCertificate) -> Codec:
        """The codec of a certificate's mean."""
        return codec_of(certificate.plan, self._codec).result

    def size_bytes(self, certificate: OpenCertificate) -> int:
        """The bytes of a certificate's mean."""
        return self.codec(certificate).size(self._parameters)

    def pieces(self, certificate: OpenCertificate) -> MeanPieces:
        """The pieces of a certificate's mean."""
        return MeanPieces(certificate.plan.layout, self.codec(certificate), self._parameters)

    # ---------------------------------------------------------------- on disk

    async def keep_outcome(
        self, vote: Vote, plan: OpenPlan, inclusion: Inclusion, mean: EncodedMean
    ) -> None:
        """Keep the mean of the outcome that this node is about to vote for.

        It is in memory before the certificate exists, so every peer that hears of the certificate
        can get it from a voter. It is durable on return if this node is one of its keepers.
        """
        self.put(certificate_hash(self._run, payload_of(vote)), mean)
        if self._me in keepers(vote, plan, inclusion):
            await self.persist(vote.number, vote.state, mean)

    async def persist(self, number: int, state: Digest, mean: EncodedMean) -> None:
        """Make the mean of an outcome durable. A disk that refuses it is reported."""
        await self._persist(number, state, [data for _, data in mean.parts])

    async def persist_state(self, number: int, state: Digest, vectors: State) -> None:
        """Make the state of a merge durable. A disk that refuses it is reported."""
        parts = [np.ascontiguousarray(part, "<f4").data.cast("B") for part in vectors]
        await self._persist(number, state, parts)

    async def _persist(self, number: int, state: Digest, parts: list[memoryview]) -> None:
        try:
            await self._disk.save_results(self._run, number, state, parts)
        except DiskFull as full:
            # The other keepers have it. A node that withheld its vote would stop the run.
            message = f"the results of round {number} were not written: {full}"
            self._record(Warned(code="DISK_FULL", message=message))

    async def drop(self, number: int) -> None:
        """Remove from disk what a full state of certificate `number` makes useless."""
        await self._disk.drop_results(self._run, number)

    # ---------------------------------------------------------------- reading

    async def mean_of(self, certificate: OpenCertificate) -> EncodedMean | None:
        """Return a certificate's mean from memory or disk, checked; None if this node lacks it."""
        kept = self._kept.get(certificate.hash)
        if kept is not None:
            return kept
        data = await self._disk.read_results(self._run, certificate.outcome.state)
        if data is None or len(data) != self.size_bytes(certificate):
            return None
        mean, pieces = EncodedMean(self.codec(certificate), [(0, data)]), self.pieces(certificate)
        digests = await self._offload(lambda: pieces_of(mean, pieces))
        return mean if pieces.root(digests) == certificate.outcome.result else None

    async def merged_state(self, certificate: OpenCertificate) -> State | None:
        """Return the state of a merge from disk, checked; None if this node lacks it."""
        data = await self._disk.read_results(self._run, certificate.outcome.state)
        if data is None or len(data) != 8 * self._parameters:
            return None
        vectors = np.frombuffer(data, "<f4").astype(np.float32).reshape(2, -1)
        state = (vectors[0], vectors[1])
        found = await self._offload(lambda: state_digest(*state))
        return state if found == certificate.outcome.state else None

    async def held(self, name: Digest) -> HeldMean | None:
        """Return the mean of a certificate for a peer that asks; None if this node lacks it."""
        entry = self._lineage.entry(name)
        if entry is None or is_merge(entry.certificate):
            return None
        certificate = entry.certificate
        pieces = self.pieces(certificate)
        digests = self._digests.get(name)
        if digests is None:
            mean = await self.mean_of(certificate)
            if mean is None:
                return None
            digests = await self._offload(lambda: pieces_of(mean, pieces))
            self._digests[name] = digests
            while len(self._digests) > DIGESTS_KEPT:
                self._digests.popitem(last=False)
        elif name not in self._kept and not await self._is_on_disk(certificate):
            return None

        async def read(offset: int, size: int) -> bytes | None:
            kept = self._kept.get(name)
            if kept is not None:
                return kept.read(offset, size)
            state = certificate.outcome.state
            return await self._disk.read_results(self._run, state, offset, size)

        return HeldMean(pieces, digests, read)

    async def _is_on_disk(self, certificate: OpenCertificate) -> bool:
        state = certificate.outcome.state
        return await self._disk.read_results(self._run, state, 0, 1) is not None
