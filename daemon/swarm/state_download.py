"""One state that is being downloaded, from several peers at once.

Every chunk is checked against the certificate before it is kept. Until the download is complete,
its vectors belong to it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
import trio

from daemon.swarm.piece_download import PieceDownload
from daemon.swarm.state_transfer import PROTOCOL, chunk_sizes
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Buffer, Digest, leaf_digest, merkle_root


class KnownState(msgspec.Struct, frozen=True):
    """A state that this node holds at least in part, so that equal chunks need not be fetched."""

    leaves: Sequence[Digest]
    value: Vector
    momentum: Vector


class StateDownload(PieceDownload):
    """The state of one certificate.

    `value` and `momentum` have shape (parameters,). They are complete when `done`.
    """

    protocol, what = PROTOCOL, "state"
    # Whether certificates since an older state were replayed to make this one.
    replayed = False
    # The certificate of the state, where it is another one than was asked for.
    reached: OpenCertificate | None = None

    def __init__(
        self,
        tip: Digest,
        state: Digest,
        parameters: int,
        on_chunk: Callable[[], None] = lambda: None,
        known: Callable[[], Iterable[KnownState]] = tuple,
    ) -> None:
        """
        Args:
            state: The digest that the certificate names.
            on_chunk: Called when verified bytes arrived.
            known: Yields the states whose equal chunks need not be fetched.
        """
        self._chunks = chunk_sizes(parameters)
        super().__init__(tip, [size for _, size in self._chunks], on_chunk)
        self.value: Vector = np.empty(parameters, np.float32)
        # A momentum of zeros never touches its memory.
        self.momentum: Vector = np.zeros(parameters, np.float32)
        self.reused_bytes = 0
        self._state, self._known = state, known

    def known(self) -> KnownState | None:
        """The chunks that are complete, for another download that may want some of them."""
        if self.leaves is None:
            return None
        leaves = [b"" if i in self._missing else leaf for i, leaf in enumerate(self.leaves)]
        return KnownState(leaves, self.value, self.momentum)

    async def reuse(self, states: Iterable[KnownState]) -> None:
        """Copy the chunks that are equal in other states.

        Each copy is checked as if it had been fetched, since its source may change meanwhile.
        """
        assert self.leaves is not None
        for known in states:
            for i in sorted(self._missing):
                if i < len(known.leaves) and known.leaves[i] == self.leaves[i]:
                    vector, start, stop = self._place(i, known.value, known.momentum)
                    piece = vector[start:stop].astype("<f4", copy=True)
                    if leaf_digest(piece.data.cast("B")) == self.leaves[i]:
                        self._keep(i, piece.data.cast("B"))
                        self.reused_bytes += piece.nbytes
                    await trio.lowlevel.checkpoint()

    # ---------------------------------------------------------------------------------- chunks

    def _lead_to_certificate(self, leaves: list[Digest]) -> bool:
        return merkle_root(leaves) == self._state

    def _digest_of(self, data: Buffer) -> Digest:
        return leaf_digest(data)

    async def _reuse(self) -> None:
        self._skip_zeros()
        await self.reuse(self._known())

    def _skip_zeros(self) -> None:
        """Keep the chunks of zeros: the momentum of a run without momentum."""
        assert self.leaves is not None
        zeros = {size: leaf_digest(bytes(size)) for size in set(self._sizes)}
        for i in sorted(self._missing):
            vector, start, stop = self._place(i, self.value, self.momentum)
            if self.leaves[i] == zeros[self._sizes[i]]:
                if vector is self.value:
                    vector[start:stop] = 0.0
                self._missing.discard(i)
                self.reused_bytes += self._sizes[i]

    def _place(self, index: int, value: Vector, momentum: Vector) -> tuple[Vector, int, int]:
        """The vector that a chunk lies in, and its first and last element in that vector."""
        offset, size = self._chunks[index]
        vector, start = (
            (value, offset) if offset < 4 * value.size else (momentum, offset - 4 * value.size)
        )
        return vector, start // 4, (start + size) // 4

    def _store(self, index: int, data: memoryview) -> None:
        vector, start, stop = self._place(index, self.value, self.momentum)
        vector[start:stop] = np.frombuffer(data, "<f4")
